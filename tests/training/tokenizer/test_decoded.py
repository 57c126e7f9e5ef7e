"""Windows that tokenizer training keeps decoded, and how clips travel from the readers to the device."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

from nemo_cosmos.data.video import read_frames, write_mp4
from nemo_cosmos.errors import InputError
from nemo_cosmos.models.tokenizer import TokenizerModule, build_tokenizer
from nemo_cosmos.pixels import from_levels
from nemo_cosmos.training.tokenizer import batches, data, decoded
from nemo_cosmos.training.tokenizer.batches import batches_on
from nemo_cosmos.training.tokenizer.config import TokenizerDataConfig
from nemo_cosmos.training.tokenizer.data import CenterClips, ClipDataset, make_loader, resolve_source
from nemo_cosmos.training.tokenizer.decoded import DecodedWindows, open_decoded
from nemo_cosmos.training.tokenizer.stats import in_batches, latent_statistics

CPU = torch.device("cpu")


@pytest.fixture
def videos(tmp_path: Path) -> Path:
    """Noise, wide and small: the small one is padded."""
    folder = tmp_path / "videos"
    folder.mkdir()
    for number, size in enumerate([(24, 40), (16, 24)]):
        generator = torch.Generator().manual_seed(number)
        write_mp4(folder / f"{number}.mp4", torch.randint(0, 256, (3, 7, *size), generator=generator).byte(), 8.0)
    return folder


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the videos that were decoded."""
    names: list[str] = []

    def read(path: Path, *arguments: int) -> Tensor:
        names.append(path.name)
        return read_frames(path, *arguments)

    monkeypatch.setattr(data, "read_frames", read)
    return names


def configured(videos: Path, **settings: object) -> TokenizerDataConfig:
    return TokenizerDataConfig(train=f"{videos}/*.mp4", num_frames=5, crop=[16, 32], **settings)  # type: ignore[arg-type]


def clips_of(config: TokenizerDataConfig) -> list[Tensor]:
    """Two epochs, and the centre clips."""
    source = resolve_source(config.train, config)
    dataset = ClipDataset(source, config, seed=2)
    return [*(dataset[position] for position in range(2 * len(dataset))), *CenterClips(source, config, 2)]


@pytest.mark.parametrize("resolution", [None, 256])
def test_kept_windows_give_the_same_clips(
    videos: Path, tmp_path: Path, reads: list[str], resolution: int | None
) -> None:
    """Every window is decoded once, whoever visits it."""
    expected = clips_of(configured(videos, resolution=resolution))
    assert len(reads) == 2 * 6 + 2
    for _ in range(2):
        found = clips_of(configured(videos, resolution=resolution, decoded=str(tmp_path / "new/decoded")))
        assert all(map(torch.equal, found, expected)) and len(found) == len(expected)
        assert all(clip.dtype == torch.float32 and clip.shape == (3, 5, 16, 32) for clip in found)
        assert len(reads) == 14 + 6


def test_a_video_that_changes_is_decoded_again(videos: Path, tmp_path: Path, reads: list[str]) -> None:
    kept, video = DecodedWindows(tmp_path), videos / "0.mp4"

    def get(start: int = 0, count: int = 5) -> Tensor:
        return kept.get(video, start, count, data.read_frames)

    first = get()
    assert torch.equal(get(), first) and len(reads) == 1
    assert torch.equal(get(1), read_frames(video, 1, 5)) and torch.equal(get(0, 3), first[:, :3]) and len(reads) == 3
    os.utime(video, ns=(0, 7))
    assert torch.equal(get(), first) and len(reads) == 4
    write_mp4(video, torch.full((3, 7, 24, 40), 90, dtype=torch.uint8), 8.0)
    assert not torch.equal(get(), first) and len(reads) == 5
    video.unlink()
    with pytest.raises(InputError, match=r"0\.mp4"):
        get()


def test_other_versions_decode_for_themselves(
    videos: Path, tmp_path: Path, reads: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = DecodedWindows(tmp_path)
    kept.get(videos / "0.mp4", 0, 5, data.read_frames)
    monkeypatch.setattr(decoded, "found_by", lambda: {"av": "0"})
    kept.get(videos / "0.mp4", 0, 5, data.read_frames)
    assert len(reads) == 2


def test_damaged_files_are_decoded_again(videos: Path, tmp_path: Path, reads: list[str]) -> None:
    folder, video = tmp_path / "decoded", videos / "0.mp4"
    kept = open_decoded(str(folder))
    assert kept is not None
    frames = kept.get(video, 0, 5, data.read_frames)
    (file,) = folder.iterdir()
    whole = file.read_bytes()
    assert len(whole) == 20 + frames.numel()
    header = whole[:8]
    others = [
        b"", whole[:10], whole[:20], whole[:-1], whole + b"0", b"?" + whole[1:], header + b"\xff" * 12 + whole[20:],
        whole[:8] + (4).to_bytes(4, "little") + whole[12:], header + bytes(12), b"\x80\x04K\x01." * 9,
    ]  # fmt: skip
    for number, damaged in enumerate(others, 2):
        file.write_bytes(damaged)
        assert torch.equal(kept.get(video, 0, 5, data.read_frames), frames)
        assert len(reads) == number and file.read_bytes() == whole, damaged[:30]
    assert list(folder.iterdir()) == [file]


def test_processes_that_meet_at_a_window_both_get_it(videos: Path, tmp_path: Path) -> None:
    """All are decoding when the first begins to write; there is one file in the end, and no temporary one."""
    together, found = threading.Barrier(3), []

    def decode(path: Path, start: int, count: int) -> Tensor:
        frames = read_frames(path, start, count)
        together.wait(timeout=60)
        return frames

    folder = tmp_path / "decoded"
    folder.mkdir()
    jobs = [
        threading.Thread(target=lambda: found.append(DecodedWindows(folder).get(videos / "0.mp4", 1, 5, decode)))
        for _ in range(3)
    ]
    for job in jobs:
        job.start()
    for job in jobs:
        job.join()
    assert len(found) == 3 and all(torch.equal(frames, read_frames(videos / "0.mp4", 1, 5)) for frames in found)
    assert [file.suffix for file in folder.iterdir()] == [".rgb"]


def test_a_full_disk_is_told_as_it_is(videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the loader too, where the error has come from another process."""

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    folder = tmp_path / "decoded"
    config = configured(videos, decoded=str(folder), num_workers=0)
    dataset = ClipDataset(resolve_source(config.train, config), config, seed=0)
    monkeypatch.setattr("nemo_cosmos.atomic.put_file", full)
    with pytest.raises(InputError, match=f"^no space left while writing to {folder} .*free some space"):
        next(batches_on(make_loader(dataset, 0, 0, 1), CPU))
    assert list(folder.iterdir()) == []
    (tmp_path / "file").write_bytes(b"")
    config = configured(videos, decoded=str(tmp_path / "file"))
    with pytest.raises(InputError, match=r"^data\.decoded=.*file: "):
        ClipDataset(resolve_source(config.train, config), config, seed=0)


@pytest.mark.parametrize(("crop", "kind"), [([16, 24], torch.uint8), ([16, 32], torch.float32)])
def test_batches_are_the_clips_of_their_positions(videos: Path, crop: list[int], kind: torch.dtype) -> None:
    """As levels where no clip of a batch is resized or padded; the second crop pads one video of two."""
    config = configured(videos, micro_batch=6, global_batch=6, num_workers=0)
    config.crop = crop
    dataset = ClipDataset(resolve_source(config.train, config), config, seed=2)
    loader = make_loader(dataset, 1, 0, 1)
    assert next(iter(loader)).dtype == kind
    batch = next(batches_on(loader, CPU))
    assert torch.equal(batch, torch.stack([dataset[position] for position in range(6, 12)]))
    levels = torch.arange(256, dtype=torch.uint8)
    assert torch.equal(batches._table(CPU)[levels.int()], from_levels(levels))


def test_levels_are_not_overwritten() -> None:
    levels = torch.tensor([0.0, 127.5, 255.0])
    assert from_levels(levels).tolist() == [-1, 0, 1] and levels.tolist() == [0, 127.5, 255]


@pytest.fixture(scope="module")
def network() -> TokenizerModule:
    torch.manual_seed(0)
    small = {"channels": 8, "channels_mult": [1, 1, 1], "num_res_blocks": 1, "chunk_frames": 5}
    return build_tokenizer("CV4x8x8-360p", **small).eval()


def test_statistics_do_not_depend_on_the_batches(network: TokenizerModule) -> None:
    clips = [torch.rand(3, 5, 16, 16, generator=torch.Generator().manual_seed(n)) * 2 - 1 for n in range(7)]
    shapes: list[int] = []

    def seen(size: int) -> Iterator[Tensor]:
        for batch in in_batches(iter(clips), size, CPU):
            shapes.append(len(batch))
            yield batch

    one, three = latent_statistics(network, seen(1)), latent_statistics(network, seen(3))
    assert shapes == [1] * 7 + [3, 3, 1]
    for a, b in zip(one, three, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)
