"""Clips of several cameras become one sample each, whatever the rig."""

from __future__ import annotations

import gc
import multiprocessing
import os
import pickle
import re
import shutil
import socket
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
import yaml
from torch import Tensor

import nemo_cosmos as nc
from nemo_cosmos.commands.preview import preview
from nemo_cosmos.commands.validate import validate
from nemo_cosmos.data.sample import LatentSample, TokenizerIdentity
from nemo_cosmos.data.shards import ShardDataset, encode_sample
from nemo_cosmos.data.video import read_frames, write_mp4
from nemo_cosmos.data.windows import WindowPlan
from nemo_cosmos.errors import InputError
from nemo_cosmos.models.text import load_text_encoder
from nemo_cosmos.models.tokenizer import load_tokenizer
from nemo_cosmos.prepare.encode import prepare as encode
from nemo_cosmos.prepare.sources import SourceOptions, open_source
from tests.inference import runs
from tests.interface.verbs import command

WAYMO = {name: i for i, name in enumerate(f"pinhole_{n}" for n in ("side_left", "front_left", "front", "front_right"))}
WAYMO["pinhole_side_right"] = 4


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models")
    runs.write_models(path)
    return path


def film(seed: int, frames: int = 6, size: tuple[int, int] = (32, 48)) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    video = torch.randint(0, 256, (3, frames, 4, 6), generator=generator).float()
    return torch.nn.functional.interpolate(video, size=size).to(torch.uint8)


def write_clip(root: Path, camera: str, name: str, seed: int, fps: float = 10, **shape: Any) -> None:
    write_mp4(root / "videos" / camera / f"{name}.mp4", film(seed, **shape), fps)
    file = root / "metas" / camera / f"{name}.txt"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(f"{camera} of {name}")


def write_rig(file: Path, cameras: dict[str, Any], **settings: Any) -> Path:
    file.write_text(yaml.safe_dump({"cameras": cameras, **settings}, sort_keys=False))
    return file


def write_rig_folder(root: Path, count: int, clips: tuple[str, ...] = ("a",), **settings: Any) -> Path:
    """Cameras ``cam0`` ..., ids falling from 11, in ``rig.yaml``."""
    for number in range(count):
        for place, name in enumerate(clips):
            write_clip(root, f"cam{number}", name, 100 * place + number)
    write_rig(root / "rig.yaml", {f"cam{n}": 11 - n for n in range(count)}, **settings)
    return root


def prepared(models: Path, source: Path, out: Path, **options: Any) -> dict[str, LatentSample]:
    usual = {"frames": 5, "size": (32, 48), "latent_dtype": "fp32", "workers": 0, "text_length": 12}
    names = {"tokenizer": models / "tokenizer", "text_encoder": models / "text"}
    nc.prepare(source, out, **{**usual, **names, **options})
    return {sample.key: sample for sample in ShardDataset(out)}


def views(sample: LatentSample) -> tuple[Tensor, ...]:
    return sample.latent.chunk(sample.num_views, dim=1)


@pytest.mark.parametrize("count", [1, 3, 12])
def test_each_view_is_encoded_alone_in_the_order_of_the_rig(models: Path, tmp_path: Path, count: int) -> None:
    source = write_rig_folder(tmp_path / "d", count)
    sample = prepared(models, source, tmp_path / "s")["a"]
    assert sample.view_ids is not None and sample.view_ids.tolist() == [11 - n for n in range(count)]
    assert sample.num_frames == 5 and sample.num_views == count and sample.fps == pytest.approx(10)
    tokenizer = load_tokenizer(models / "tokenizer")
    for number, latent in enumerate(views(sample)):
        frames = read_frames(source / f"videos/cam{number}/a.mp4", 0, 5, (32, 48))
        expected = tokenizer.encode(frames[None].float() / 127.5 - 1)[0]
        torch.testing.assert_close(latent, expected, rtol=1e-4, atol=1e-4)
    assert sample.text.shape[0] == count and not sample.text[1:].any()
    text = load_text_encoder(models / "text", max_length=12).encode_trimmed(["cam0 of a"])[0]
    assert torch.equal(sample.text[0], text.half())
    assert sample.caption == "cam0 of a" and sample.captions == ["cam0 of a"] + [""] * (count - 1)
    assert sample.cameras == [f"cam{n}" for n in range(count)] and sample.frame_repeat is None


def test_exchanged_cameras_exchange_exactly_their_outputs(models: Path, tmp_path: Path) -> None:
    source = write_rig_folder(tmp_path / "d", 3, captions="all")
    one = prepared(models, source, tmp_path / "s")["a"]
    rig = write_rig(tmp_path / "r.yaml", {"cam2": 9, "cam1": 10, "cam0": 11}, front="cam0", captions="all")
    other = prepared(models, source, tmp_path / "t", rig=rig)["a"]
    assert one.view_ids is not None and other.view_ids is not None
    assert other.view_ids.tolist() == one.view_ids.flip(0).tolist() and other.captions == one.captions[::-1]
    for mine, its in zip(views(one), views(other)[::-1], strict=True):
        assert torch.equal(mine, its)
    assert torch.equal(one.text, other.text.flip(0)) and one.text.any(dim=2).any(dim=1).all()
    with pytest.raises(InputError, match="was prepared with rig="):
        prepared(models, source, tmp_path / "s", rig=rig)


def test_waymo_with_its_defaults_and_windows(models: Path, tmp_path: Path) -> None:
    for camera, seed in WAYMO.items():
        rows = 24 if "side" in camera else 32
        write_clip(tmp_path / "d", camera, "segment-1_2", seed, frames=11, size=(rows, 48))
        write_clip(tmp_path / "d", camera, "segment-3_4", seed + 9, fps=30, frames=27, size=(rows, 48))
    (tmp_path / "d/videos/3d_lanes").mkdir()
    (tmp_path / "d/videos/3d_lanes/segment-1_2.tar").write_bytes(b"lanes")
    opened = open_source(tmp_path / "d")
    assert opened.kind == "waymo" and opened.sampling.frames == 29 and opened.sampling.fps == 10
    samples = prepared(models, tmp_path / "d", tmp_path / "s", stride=1, frames=9)
    assert list(samples) == [f"segment-1_2-f00000{start}" for start in range(3)] + ["segment-3_4-f000000"]
    sample = samples["segment-1_2-f000002"]
    assert sample.view_ids is not None and sample.view_ids.tolist() == [4, 5, 0, 1, 2]
    assert sample.padding_mask is None and sample.image_size == (32, 48, 32, 48)
    assert sample.captions == ["", "", "pinhole_front of segment-1_2", "", ""]
    tokenizer = load_tokenizer(models / "tokenizer")
    for key, start, step in (("segment-1_2-f000002", 2, 1), ("segment-3_4-f000000", 0, 3)):
        file = tmp_path / f"d/videos/pinhole_side_left/{key[:-8]}.mp4"
        frames = read_frames(file, start, 9, (32, 48), fit="stretch", step=step)
        expected = tokenizer.encode(frames[None].float() / 127.5 - 1)[0]
        torch.testing.assert_close(views(samples[key])[0], expected, rtol=1e-4, atol=1e-4)
    assert ShardDataset(tmp_path / "s").manifest.view_ids == [[4, 5, 0, 1, 2]]


def test_views_of_other_shapes_have_masks_of_their_own(models: Path, tmp_path: Path) -> None:
    write_clip(tmp_path / "d", "wide", "a", 1, size=(32, 48))
    write_clip(tmp_path / "d", "tall", "a", 2, size=(64, 32))
    write_rig(tmp_path / "d/rig.yaml", {"wide": 0, "tall": {"view_id": 1, "frame_repeat": 10}} | {
        "wide": {"view_id": 0, "frame_repeat": 0}
    })  # fmt: skip
    sample = prepared(models, tmp_path / "d", tmp_path / "s", fit="pad")["a"]
    assert sample.padding_mask is not None and sample.padding_mask[:, 0].tolist() == [[0] * 6, [1, 1, 0, 0, 1, 1]]
    assert sample.frame_repeat is not None and sample.frame_repeat.tolist() == [0, 1]
    said = command(validate, tmp_path / "s")
    assert "views [0, 1] (1)" in said and "fit for training" in said
    command(preview, tmp_path / "s", "--tokenizer", models / "tokenizer", "--out", tmp_path / "p.html")
    page = (tmp_path / "p.html").read_text()
    assert "wide, id 0" in page and "tall, id 1" in page and "wide of a" in page and page.count("<video") == 2
    assert "(no caption)" in page and "2 views of 5 frames" in page


def faulty(root: Path) -> Path:
    write_rig_folder(root, 3, ("a", "b", "c", "good"))
    (root / "videos/cam1/a.mp4").unlink()
    write_clip(root, "cam2", "b", 5, frames=4)
    write_clip(root, "cam0", "c", 6, fps=12)
    return root


FAULTS = (
    "a: cam1 missing",
    r"b: lengths differ \(cam0 6 frames, cam1 6 frames, cam2 4 frames\)",
    r"c: frame rates differ \(cam0 12, cam1 10, cam2 10\)",
)


def test_all_faults_of_a_folder_are_one_message(models: Path, tmp_path: Path) -> None:
    source = faulty(tmp_path / "d")
    with pytest.raises(InputError, match=f"3 of 4 clips cannot be used: {'; '.join(FAULTS)}; .*--skip-incomplete"):
        prepared(models, source, tmp_path / "s")
    assert not (tmp_path / "s").exists()
    assert list(prepared(models, source, tmp_path / "s", skip_incomplete=True)) == ["good"]
    skipped = {entry["clip"]: entry["reason"] for entry in ShardDataset(tmp_path / "s").manifest.skipped}
    assert set(skipped) == {"a", "b", "c"} and "cam1 missing" in skipped["a"]


def test_validate_lists_the_faults_of_a_raw_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = faulty(tmp_path / "d")
    (source / "videos/cam2/good.mp4").write_bytes(b"none" * 9)
    with pytest.raises(InputError, match="4 of 4 clips cannot be used"):
        validate(source, layout="rig")
    said = capsys.readouterr().out
    for fault in (*FAULTS, r"good: .*cam2/good\.mp4"):
        assert re.search(f"error: {fault}", said), said
    assert "4 clips of 3 cameras (cam0 (11), cam1 (10), cam2 (9)), read as rig" in said
    with pytest.raises(InputError, match="--layout"):
        validate(source)
    write_rig(tmp_path / "one.yaml", {"cam1": 3})
    (source / "metas/cam1/c.txt").unlink()
    validate(source, rig=str(tmp_path / "one.yaml"))
    said = capsys.readouterr().out
    assert "left out: cam0, cam2" in said and "1 clips without caption or embedding, for example c" in said
    assert "every clip can be used" in said


@pytest.mark.parametrize("layout", ["clips", "images"])
def test_validate_reads_other_layouts(tmp_path: Path, layout: str, capsys: pytest.CaptureFixture[str]) -> None:
    folder, good = {"clips": ("videos", "a.mp4"), "images": ("images", "a.png")}[layout]
    (tmp_path / folder).mkdir()
    if layout == "clips":
        write_mp4(tmp_path / folder / good, film(1), 10)
    else:
        from PIL import Image

        Image.new("RGB", (48, 32)).save(tmp_path / folder / good)
    validate(tmp_path, layout="auto")
    said = capsys.readouterr().out
    assert f"1 clips, read as {layout}" in said and "32x48 (1)" in said and "1 clips without caption" in said
    (tmp_path / folder / f"b{Path(good).suffix}").write_bytes(b"broken")
    with pytest.raises(InputError, match="1 of 2 clips cannot be used"):
        validate(tmp_path, layout=layout)


def test_cameras_that_do_not_fit_the_rig(models: Path, tmp_path: Path) -> None:
    source = write_rig_folder(tmp_path / "d", 2)
    write_clip(source, "cam7", "a", 7)
    with pytest.raises(InputError, match=r"cam7 of .*videos are no cameras of .*rig\.yaml"):
        prepared(models, source, tmp_path / "s")
    rig = write_rig(tmp_path / "r.yaml", {"cam0": 0, "cam1": 1, "cam3": 2})
    with pytest.raises(InputError, match=r"does not fit its rig: there is no folder .*cam3"):
        prepared(models, source, tmp_path / "s", rig=rig, skip_incomplete=True)
    with pytest.raises(InputError, match=r"holds none of the cameras of .*pinhole_front.*found cam0, cam1, cam7"):
        prepared(models, source, tmp_path / "s", source_kind="waymo")
    with pytest.raises(InputError, match=r"has no rig\.yaml: say which folders are cameras with --rig"):
        open_source(tmp_path, "rig")
    subset = write_rig(tmp_path / "r.yaml", {"cam1": 1})
    assert prepared(models, source, tmp_path / "s", rig=subset)["a"].cameras == ["cam1"]
    shutil.copy(source / "videos/cam1/a.mp4", source / "videos/cam1/a.mov")
    with pytest.raises(InputError, match=r"a: cam1 has it twice"):
        open_source(source, options=SourceOptions(rig=subset))


def test_texts_are_those_that_the_rig_asks_for(models: Path, tmp_path: Path) -> None:
    source = write_rig_folder(tmp_path / "d", 3, captions="all")
    (source / "metas/cam1/a.txt").unlink()
    with pytest.raises(InputError, match=r"a: no caption \(expected .*metas/cam1/a\.txt\).*--default-caption"):
        prepared(models, source, tmp_path / "s")
    sample = prepared(models, source, tmp_path / "s", default_caption="a road")["a"]
    assert sample.captions == ["cam0 of a", "a road", "cam2 of a"]
    assert prepared(models, source, tmp_path / "t", captions="front")["a"].captions == ["cam0 of a", "", ""]


def test_embeddings_of_other_tools(models: Path, tmp_path: Path) -> None:
    source = write_rig_folder(tmp_path / "d", 3, captions="all")
    files = {"cam0/a.pickle": (3, 8), "cam1/a.pkl": (1, 5, 8), "cam2/a.pkl": (2, 8)}
    for number, (name, shape) in enumerate(files.items()):
        (source / "t5_xxl" / name).parent.mkdir(parents=True)
        content = pickle.dumps([np.full(shape, number + 1, np.float32)])
        (source / "t5_xxl" / name).write_bytes(content)
    shutil.rmtree(source / "metas")
    sample = prepared(models, source, tmp_path / "s", text_encoder=None)["a"]
    assert sample.text.shape == (3, 5, 8)
    assert sample.text[:, :, 0].tolist() == [[1, 1, 1, 0, 0], [2] * 5, [3, 3, 0, 0, 0]]
    (source / "t5_xxl/cam1/a.pkl").write_bytes(pickle.dumps([np.ones((2, 5, 8), np.float32)]))
    with pytest.raises(InputError, match=r"a\.pkl holds float32 \(2, 5, 8\)"):
        prepared(models, source, tmp_path / "t", text_encoder=None)
    (source / "t5_xxl/cam1/a.pkl").unlink()
    with pytest.raises(InputError, match=r"a: no embedding \(expected .*cam1/a\.pickle\).*from_waymo"):
        prepared(models, source, tmp_path / "t", text_encoder=None)


def test_a_changed_camera_is_noticed(models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = write_rig_folder(tmp_path / "d", 3, ("a", "b"))
    before = prepared(models, source, tmp_path / "s")
    assert "prepared 0 samples" not in capsys.readouterr().out
    prepared(models, source, tmp_path / "s")
    assert "prepared 0 samples" in capsys.readouterr().out
    write_clip(source, "cam2", "a", 77)
    (source / "metas/cam1/b.txt").write_text("not used")
    after = prepared(models, source, tmp_path / "s")
    assert "changed since, made again: a (video)" in capsys.readouterr().out
    assert torch.equal(before["a"].latent[:, :4], after["a"].latent[:, :4])
    assert not torch.equal(before["a"].latent[:, 4:], after["a"].latent[:, 4:])
    # Files that change places have the same sizes and times together.
    folders = [source / "videos" / name for name in ("cam1", "cam2", "spare")]
    for old, new in ((0, 2), (1, 0), (2, 1)):
        folders[old].rename(folders[new])
    swapped = prepared(models, source, tmp_path / "s")
    assert torch.equal(swapped["b"].latent[:, 2:4], before["b"].latent[:, 4:])
    (source / "videos/cam1/b.mp4").unlink()
    with pytest.raises(InputError, match="b: cam1 missing"):
        prepared(models, source, tmp_path / "s")


def test_the_held_out_clips_of_the_released_training(models: Path, tmp_path: Path) -> None:
    source = write_rig_folder(tmp_path / "d", 1, tuple(f"c{n:02d}" for n in range(11)))
    assert list(prepared(models, source, tmp_path / "v", split="val")) == ["c09", "c10"]
    assert list(prepared(models, source, tmp_path / "t", split="train")) == [f"c{n:02d}" for n in range(9)]
    for file in (source / "videos/cam0").glob("c*[1-9].mp4"):
        file.unlink()
    (source / "videos/cam0/c10.mp4").unlink()
    with pytest.raises(InputError, match="of 1 clips 1 are held out, which leaves none"):
        prepared(models, source, tmp_path / "u", split="train")


def test_worker_processes_after_comparing_cameras(models: Path, tmp_path: Path) -> None:
    source = write_rig_folder(tmp_path / "d", 6, ("a", "b", "c"))
    one = prepared(models, source, tmp_path / "s")
    two = prepared(models, source, tmp_path / "t", workers=2)
    assert [encode_sample(s) for s in one.values()] == [encode_sample(s) for s in two.values()]


class Means:
    """Stands in for a video tokenizer: means over 8 x 8 blocks of every fourth frame."""

    identity = TokenizerIdentity("means", "0" * 64, 4, 8, 3)

    def __init__(self, fail_after: int = 0) -> None:
        self.calls, self.fail_after = 0, fail_after

    def latent_frames(self, num_frames: int) -> int:
        return 1 + (num_frames - 1) // 4

    def encode(self, video: Tensor) -> Tensor:
        self.calls += 1
        if self.calls == self.fail_after:
            raise KeyboardInterrupt
        return torch.nn.functional.avg_pool3d(video[:, :, ::4], (1, 8, 8))


def run(models: Path, source: Path, out: Path, tokenizer: Means) -> Any:
    return encode(
        open_source(source).clips,
        out,
        tokenizer=tokenizer,
        plan=WindowPlan(frames=5, size=(32, 48), stride=1),
        text_encoder=lambda: load_text_encoder(models / "text"),
        text_encoder_name="tiny",
        samples_per_shard=1,
    )


def contents(out: Path) -> list[tuple[bytes, bytes]]:
    return [encode_sample(sample) for sample in ShardDataset(out, verify="full")]


def test_a_stopped_call_goes_on(models: Path, tmp_path: Path) -> None:
    source = write_rig_folder(tmp_path / "d", 3, ("a", "b"))
    run(models, source, tmp_path / "whole", Means())
    with pytest.raises(KeyboardInterrupt):
        run(models, source, tmp_path / "s", Means(fail_after=8))
    rest = Means()
    result = run(models, source, tmp_path / "s", rest)
    assert (result.already_done, result.written, rest.calls) == (2, 2, 6)
    assert contents(tmp_path / "s") == contents(tmp_path / "whole") and len(contents(tmp_path / "s")) == 4


def rank_main(rank: int, port: int, models: Path, source: Path, out: Path) -> None:
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), RANK=str(rank), WORLD_SIZE="2")
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    prepared(models, source, out, skip_incomplete=True)
    dist.destroy_process_group()


def test_two_ranks_equal_one(models: Path, tmp_path: Path) -> None:
    source = write_rig_folder(tmp_path / "d", 2, ("a", "b", "c"))
    write_clip(source, "cam1", "b", 3, frames=5)
    one = prepared(models, source, tmp_path / "one", skip_incomplete=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    gc.collect()  # Decoders of this process have threads that the others would wait for.
    context = multiprocessing.get_context("fork")
    arguments = (port, models, source, tmp_path / "two")
    ranks = [context.Process(target=rank_main, args=(rank, *arguments)) for rank in range(2)]
    for process in ranks:
        process.start()
    for process in ranks:
        process.join(240)
        assert process.exitcode == 0
    assert list(one) == ["a", "c"] and contents(tmp_path / "one") == contents(tmp_path / "two")
    assert len(ShardDataset(tmp_path / "two").manifest.skipped) == 1
