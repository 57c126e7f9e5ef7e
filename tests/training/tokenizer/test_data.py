"""Clips of tokenizer training: crops, resolution classes, order, named datasets."""

from __future__ import annotations

import dataclasses
import json
import os
from fractions import Fraction
from pathlib import Path

import pytest
import torch

from nemo_cosmos.data.video import VideoInfo, probe, read_frames, write_mp4
from nemo_cosmos.errors import InputError
from nemo_cosmos.training.tokenizer import data
from nemo_cosmos.training.tokenizer.config import TokenizerDataConfig
from nemo_cosmos.training.tokenizer.data import (
    CenterClips,
    ClipDataset,
    PositionSampler,
    augment,
    center_clip,
    cover_size,
    pad_to,
    resolve_source,
)
from nemo_cosmos.training.tokenizer.distributed import Workers
from nemo_cosmos.training.tokenizer.frame_counts import FRAME_COUNTS, FrameCounts
from nemo_cosmos.version import __version__
from tests.data.odd_videos import LOSSLESS, encode, numbered, numbers, remux


def test_cover_size_keeps_the_aspect_ratio() -> None:
    assert cover_size(720, 1280, 720) == (720, 1280)
    assert cover_size(1080, 1920, 360) == (320, 569)
    assert cover_size(480, 640, 256) == (256, 341)
    assert cover_size(640, 360, 256) == (341, 192)
    assert cover_size(50, 70, None) == (50, 70)


@pytest.mark.parametrize("size", [(72, 128), (128, 72), (20, 128), (8, 8)])
def test_crops_have_the_size_asked_for(size: tuple[int, int]) -> None:
    """Landscape and portrait videos, and ones smaller than the crop, which are padded."""
    video = torch.randint(0, 256, (3, 5, *size), dtype=torch.uint8)
    config = TokenizerDataConfig(train="x", crop=[32, 48], native_crop_probability=0.5)
    for seed in range(6):
        clip = augment(video, torch.Generator().manual_seed(seed), config, None)
        assert clip.shape == (3, 5, 32, 48) and clip.min() >= -1 and clip.max() <= 1
    assert center_clip(video, (32, 48), 256).shape == (3, 5, 32, 48)


def test_augmentations_are_what_they_say() -> None:
    video = torch.arange(4 * 4 * 4).reshape(1, 4, 4, 4).expand(3, -1, -1, -1).to(torch.uint8)
    config = TokenizerDataConfig(train="x", crop=[4, 4], reverse_probability=1.0, flip_probability=1.0)
    clip = augment(video, torch.Generator().manual_seed(0), config, None)
    torch.testing.assert_close(clip, video.flip(1, 3) / 127.5 - 1.0)
    config = TokenizerDataConfig(train="x", crop=[4, 4], reverse_probability=0.0, flip_probability=0.0)
    torch.testing.assert_close(augment(video, torch.Generator().manual_seed(0), config, None), video / 127.5 - 1.0)


def test_padding_reflects_or_repeats() -> None:
    row = torch.tensor([1.0, 2.0, 3.0]).view(1, 1, 1, 3).expand(3, 1, 2, 3)
    assert pad_to(row, (2, 5))[0, 0, 0].tolist() == [1, 2, 3, 2, 1]
    assert pad_to(row, (2, 7))[0, 0, 0].tolist() == [1, 2, 3, 3, 3, 3, 3]


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clips")
    for i, frames in enumerate((6, 3, 8)):
        write_mp4(folder / f"{i}.mp4", torch.full((3, frames, 16, 32), 60 * i + 40, dtype=torch.uint8), 8.0)
    return folder


def test_every_window_comes_once_an_epoch(clips: Path) -> None:
    config = TokenizerDataConfig(train=f"{clips}/*.mp4", num_frames=5, crop=[16, 16])
    dataset = ClipDataset(resolve_source(config.train, config), config, seed=1)
    assert len(dataset) == 2 + 0 + 4
    windows = {(path.name, start) for path, start in map(dataset.window, range(6))}
    assert windows == {("0.mp4", 0), ("0.mp4", 1), ("2.mp4", 0), ("2.mp4", 1), ("2.mp4", 2), ("2.mp4", 3)}
    brightness = [round((float(dataset[p].mean()) + 1) * 127.5, -1) for p in range(12)]
    assert sorted(brightness[:6]) == sorted(brightness[6:]) == [40, 40, 160, 160, 160, 160]
    assert torch.equal(dataset[7], ClipDataset(dataset.source, config, seed=1)[7])


def test_videos_are_probed_once_while_they_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    probed: list[str] = []
    monkeypatch.setattr(data, "probe", lambda path: (probed.append(path.name), probe(path))[1])
    file = tmp_path / "a.mp4"
    write_mp4(file, torch.zeros(3, 4, 16, 32, dtype=torch.uint8), 8.0)
    assert data.count_frames([file]) == data.count_frames([file]) == [4]
    write_mp4(file, torch.zeros(3, 6, 16, 32, dtype=torch.uint8), 8.0)
    assert data.count_frames([file]) == [6]
    assert probed == ["a.mp4"] * 2
    (tmp_path / "gone.mp4").symlink_to(tmp_path / "nowhere.mp4")
    with pytest.raises(InputError, match=r"gone\.mp4"):
        data.count_frames([tmp_path / "gone.mp4"])


def test_a_run_probes_again_only_what_has_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """What is damaged is told of at every start, once."""
    probed: list[str] = []
    damage = {"b.mp4": "b.mp4 is damaged at 1.00 s"}

    def look(path: Path) -> VideoInfo:
        probed.append(path.name)
        return dataclasses.replace(probe(path), damage=damage.get(path.name, ""))

    def start() -> list[int]:
        """As in a new process."""
        probed.clear()
        caplog.clear()
        monkeypatch.setattr(data, "COUNTS", FrameCounts())
        data.COUNTS.load(tmp_path)
        counts = data.count_frames(files)
        assert data.count_frames(files) == counts
        assert [record.getMessage() for record in caplog.records if record.levelname == "WARNING"] == [
            "b.mp4 is damaged at 1.00 s; its first 5 frames are used"
        ]
        data.COUNTS.save(tmp_path)
        return counts

    monkeypatch.setattr(data, "probe", look)
    files = [tmp_path / name for name in ("a.mp4", "b.mp4", "c \udcff.mp4")]
    for number, file in enumerate(files):
        write_mp4(file, torch.zeros(3, 4 + number, 16, 32, dtype=torch.uint8), 8.0)
    assert start() == [4, 5, 6] and len(probed) == 3
    assert start() == [4, 5, 6] and probed == []
    write_mp4(files[0], torch.zeros(3, 9, 16, 32, dtype=torch.uint8), 8.0)
    os.utime(files[2], ns=(0, 7))
    assert start() == [9, 5, 6] and probed == [files[0].name, files[2].name]
    kept = tmp_path / FRAME_COUNTS
    whole = kept.read_text()
    first = os.path.abspath(files[0])
    others = [
        whole[:-20], "", "[]", "[" * 100_000, '{"counts": 3}', whole.replace(__version__, "0"), "\udcff",
        json.dumps({**json.loads(whole), "counts": [1]}),
        json.dumps({**json.loads(whole), "counts": {first: None}}),
        json.dumps({**json.loads(whole), "counts": {first: [1, 2, True]}}),
    ]  # fmt: skip
    for damaged in others:
        kept.write_bytes(damaged.encode("utf-8", "surrogateescape"))
        assert start() == [9, 5, 6] and len(probed) == 3, damaged[:40]
        assert json.loads(kept.read_text()) == json.loads(whole)
    kept.unlink()
    kept.mkdir()
    probed.clear()
    monkeypatch.setattr(data, "COUNTS", FrameCounts())
    data.COUNTS.load(tmp_path)
    assert data.count_frames(files) == [9, 5, 6]
    data.COUNTS.save(tmp_path)
    assert "is not written" in caplog.text and kept.is_dir()


def test_processes_share_the_probing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each looks at its share; one whose share has an unreadable file finds the same first one as the others."""
    files = [tmp_path / f"{number}.mp4" for number in range(5)]
    for number, file in enumerate(files):
        write_mp4(file, torch.zeros(3, 3 + number, 16, 32, dtype=torch.uint8), 8.0)
    device = torch.device("cpu")
    probed: list[str] = []
    monkeypatch.setattr(data, "probe", lambda path: (probed.append(path.name), probe(path))[1])

    def ranks() -> list[FrameCounts]:
        told: list[str] = []
        gather = lambda self, values: told.extend(values) or told  # noqa: E731
        monkeypatch.setattr(Workers, "gather", gather)
        counts = [FrameCounts(), FrameCounts()]
        for rank in (0, 1, 0):  # The first hears of all once the second has told.
            monkeypatch.setattr(data, "COUNTS", counts[rank])
            data.share_counts(files, Workers(rank, 2, device))
        return counts

    for counts in ranks():
        monkeypatch.setattr(data, "COUNTS", counts)
        assert data.count_frames(files) == [3, 4, 5, 6, 7]
    assert sorted(probed) == [file.name for file in files]
    files[3].write_bytes(b"no video")
    files[4].write_bytes(b"no video")
    for counts in ranks():
        monkeypatch.setattr(data, "COUNTS", counts)
        with pytest.raises(InputError, match=r"3\.mp4"):
            data.count_frames(files)


def test_centre_clips_are_read_when_asked_for(clips: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Statistics of hundreds of long clips must not need the memory of all of them."""
    read: list[str] = []

    def record(path: Path, first: int, count: int) -> torch.Tensor:
        read.append(path.name)
        return read_frames(path, first, count)

    monkeypatch.setattr(data, "read_frames", record)
    config = TokenizerDataConfig(train=f"{clips}/*.mp4", num_frames=5, crop=[16, 16])
    source = resolve_source(config.train, config)
    held_out = CenterClips(source, config, 5)
    assert len(held_out) == 2 and read == []
    assert held_out[1].shape == (3, 5, 16, 16) and read == ["2.mp4"]
    assert len(list(held_out)) == len(held_out[:]) == 2
    assert CenterClips(source, config, 1).files == [clips / "0.mp4"]
    with pytest.raises(InputError, match="none of 3 videos has 121 frames"):
        CenterClips(source, TokenizerDataConfig(num_frames=121, crop=[16, 16]), 5)


def test_positions_do_not_depend_on_the_processes() -> None:
    config = TokenizerDataConfig(train="x", micro_batch=2, global_batch=8)

    def positions(world: int, start: int, count: int) -> list[set[int]]:
        """Positions of each step, over all processes."""
        iterators = [iter(PositionSampler(config, start, rank, world)) for rank in range(world)]
        return [{next(it) for it in iterators for _ in range(8 // world)} for _ in range(count)]

    expected = [set(range(8 * s, 8 * s + 8)) for s in range(3)]
    assert positions(1, 0, 3) == positions(2, 0, 3) == positions(4, 0, 3) == expected
    assert positions(2, 2, 1) == expected[2:]


def test_named_datasets(clips: Path, tmp_path: Path) -> None:
    registry = tmp_path / "names.yaml"
    registry.write_text(f"my_video: {clips}/*.mp4\nmy_video2: {clips}/0.mp4\n")
    config = TokenizerDataConfig(train="", registry=str(registry))
    source = resolve_source("my_video720", config)
    assert source.resolution == 720 and len(source.files) == 3
    assert resolve_source("my_video", config).resolution is None
    assert len(resolve_source("my_video2", config).files) == 1
    assert len(resolve_source(str(clips), config).files) == 3
    with pytest.raises(InputError, match="registered are my_video, my_video2"):
        resolve_source("other_video720", config)
    with pytest.raises(InputError, match="expected one of 256"):
        resolve_source("my_video700", config)


def test_windows_end_where_what_is_shown_ends(tmp_path: Path) -> None:
    pictures = [numbered(n) for n in range(40)]
    encode(tmp_path / "whole.mkv", pictures, options={**LOSSLESS, "g": "20", "bf": "0"})
    (tmp_path / "clips").mkdir()
    remux(tmp_path / "whole.mkv", tmp_path / "clips/cut.mp4", hide=0.8)
    remux(tmp_path / "whole.mkv", tmp_path / "clips/lost.mp4", keep=lambda n: n != 10)
    times = [Fraction(n, 30) if n < 6 else Fraction(1, 5) + Fraction(n - 6, 10) for n in range(12)]
    encode(tmp_path / "clips/variable.mp4", pictures[:12], times=times)
    config = TokenizerDataConfig(train="", num_frames=5, crop=[64, 96], reverse_probability=0, flip_probability=0)
    dataset = ClipDataset(resolve_source(str(tmp_path / "clips"), config), config, seed=0)
    assert dataset.ends.diff(prepend=torch.tensor([0])).tolist() == [12, 6, 8]
    seen = set()
    for position in range(len(dataset)):
        seen.add(tuple(numbers(((dataset[position] + 1) * 127.5).round())))
    assert {window for window in seen if window[0] >= 24} == {tuple(range(n, n + 5)) for n in range(24, 36)}
    assert (0, 2, 4, 6, 6) in seen  # a frame that is shown for longer
