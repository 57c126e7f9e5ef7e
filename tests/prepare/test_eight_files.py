"""Scenes into folders of eight files a sample: what is in them, what is left out, resuming, ranks, the tool."""

from __future__ import annotations

import json
import multiprocessing
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor

from nemo_cosmos.data.eight_files import PARTS, EightFileDataset
from nemo_cosmos.data.sample import TokenizerIdentity
from nemo_cosmos.data.shards import ShardDataset
from nemo_cosmos.data.video import probe, read_frames
from nemo_cosmos.data.windows import WindowPlan
from nemo_cosmos.errors import InputError
from nemo_cosmos.models.text import load_text_encoder, save_tiny_text_encoder
from nemo_cosmos.prepare.eight_files import FolderResult, prepare_eight_files, read_numbers
from nemo_cosmos.prepare.encode import prepare
from nemo_cosmos.prepare.sources import SceneOptions, SourceOptions, open_source
from tests.data.scene_files import number_of, picture, scene, write_folder, write_zip

PLAN = WindowPlan(9, (16, 32), "pad", fps=7.0)


class MeanTokenizer:
    """Stands in for a video tokenizer: latents are means over 8 x 8 x 8 blocks."""

    identity = TokenizerIdentity("mean", "0" * 64, 8, 8, 3)

    def __init__(self, fail_after: int | None = None) -> None:
        self.calls, self.fail_after = 0, fail_after

    def latent_frames(self, num_frames: int) -> int:
        if (num_frames - 1) % 8:
            raise InputError(f"{num_frames} frames: expected 1 + a multiple of 8")
        return 1 + (num_frames - 1) // 8

    def encode(self, video: Tensor) -> Tensor:
        self.calls += 1
        if self.calls == self.fail_after:
            raise KeyboardInterrupt
        video = torch.cat([video[:, :, :1].expand(-1, -1, 7, -1, -1), video], dim=2)
        return torch.nn.functional.avg_pool3d(video, 8)


@pytest.fixture(scope="module")
def text_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("encoder") / "tiny"
    save_tiny_text_encoder(path, width=16, num_layers=1)
    return path


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four scenes, of which the second cannot be used, and their captions."""
    path = tmp_path_factory.mktemp("scenes")
    write_zip(path / "1K" / "aa.zip", scene(14))
    write_zip(path / "1K" / "bb.zip", scene(8))
    write_folder(path / "2K" / "cc", scene(20))
    write_zip(path / "2K" / "dd.zip", scene(30), nested=False)
    captions = {"aa/0": "a room", "bb/0": "a hall", "cc/0": "a yard", "cc/1": "its gate", "dd": "a street"}
    (path / "captions.json").write_text(json.dumps(captions))
    return path


def run(
    source: Path, out: Path, text: Path, tokenizer: MeanTokenizer | None = None, workers: int = 0, **asked: Any
) -> FolderResult:
    options = SceneOptions(**{"captions": source / "captions.json", "chunks": 2, "seed": 3, **asked})
    opened = open_source(source, "dl3dv", SourceOptions(scenes=options))
    return prepare_eight_files(
        opened.clips,  # type: ignore[arg-type]
        out,
        tokenizer=tokenizer or MeanTokenizer(),
        plan=PLAN,
        text_encoder=lambda: load_text_encoder(text),
        text_encoder_name="tiny",
        workers=workers,
        options={"seed": options.seed},
    )


def contents(folder: Path) -> dict[str, bytes]:
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


@pytest.fixture(scope="module")
def prepared(source: Path, text_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("out") / "samples"
    videos = tmp_path_factory.mktemp("cache") / "video_files"
    result = run(source, out, text_folder, videos=videos)
    assert (result.samples, result.written, result.already_done) == (6, 6, 0)
    assert [failure.clip for failure in result.skipped] == ["1K/bb.zip"]
    assert sorted(p.name for p in videos.iterdir()) == ["aa.mp4", "cc.mp4", "dd.mp4"]
    assert probe(videos / "aa.mp4").fps == 7
    frames = read_frames(videos / "aa.mp4", 0, 14, (18, 32))
    assert [number_of(frames[:, t, 9, 16].tolist()) for t in range(14)] == list(range(14))
    return out


def test_eight_files_have_the_known_shapes_and_types(prepared: Path) -> None:
    expected = {
        "video_latent": ((3, 2, 2, 4), torch.bfloat16),
        "conditioning_latent": ((3, 2, 2, 4), torch.bfloat16),
        "plucker_embeddings": ((9, 6, 2, 4), torch.float32),
        "image_size": ((1, 4), torch.float16),
        "padding_mask": ((1, 2, 4), torch.bfloat16),
        "t5_text_embeddings": ((512, 16), torch.bfloat16),
        "t5_text_mask": ((512,), torch.bfloat16),
    }
    for number in range(6):
        for name, (shape, dtype) in expected.items():
            value = torch.load(prepared / f"{number}.{name}.pth", weights_only=True)
            assert (tuple(value.shape), value.dtype) == (shape, dtype), name
    assert torch.load(prepared / "0.image_size.pth", weights_only=True).tolist() == [[16, 32, 16, 28]]
    info = json.loads((prepared / "0.info.json").read_text())
    assert list(info)[:7] == ["height", "width", "fps", "num_frames", "video_path", "caption", "start_frame"]
    assert (info["fps"], info["num_frames"], info["video_path"]) == (7.0, 9, "aa.mp4")
    assert info["plucker_channels"] == "direction, moment"
    assert sorted(p.name.split(".", 1)[1] for p in prepared.glob("0.*")) == sorted(PARTS)


def test_numbers_have_no_holes_and_captions_are_those_of_chunk_or_scene(prepared: Path) -> None:
    numbers = {name: entry["number"] for name, entry in read_numbers(prepared).items()}
    assert numbers == {"aa/0": 0, "aa/1": 1, "cc/0": 2, "cc/1": 3, "dd/0": 4, "dd/1": 5}
    captions = [json.loads((prepared / f"{n}.info.json").read_text())["caption"] for n in range(6)]
    assert captions == ["a room", "a room", "a yard", "its gate", "a street", "a street"]
    report = json.loads((prepared / "skipped.json").read_text())
    assert len(report) == 1 and "has 8 pictures with poses" in report[0]["reason"]


def test_latents_and_rays_are_of_the_frames_that_the_record_names(prepared: Path) -> None:
    latent = torch.load(prepared / "2.video_latent.pth", weights_only=True).float()
    given = torch.load(prepared / "2.conditioning_latent.pth", weights_only=True).float()
    start = json.loads((prepared / "2.info.json").read_text())["start_frame"]
    red = (latent[0, 0, 0, 2] + 1) * 127.5 / 8  # The first frame alone.
    assert red.item() == pytest.approx(start, abs=0.1)
    assert torch.equal(given, latent)  # Nine frames are all that there are.
    rays = torch.load(prepared / "2.plucker_embeddings.pth", weights_only=True)
    assert not rays[0, 3:].any()  # The first camera stands at the origin.
    direction, moment = rays[8, :3, 1, 2], rays[8, 3:, 1, 2]
    position = torch.tensor([1.0, 0, 0])  # The last one is furthest away, to the right.
    torch.testing.assert_close(moment, torch.linalg.cross(position, direction))


def test_shards_hold_the_same_samples(source: Path, prepared: Path, text_folder: Path, tmp_path: Path) -> None:
    options = SceneOptions(captions=source / "captions.json", chunks=2, seed=3)
    opened = open_source(source, "dl3dv", SourceOptions(scenes=options))
    encoder = load_text_encoder(text_folder)
    result = prepare(
        opened.clips, tmp_path / "s", tokenizer=MeanTokenizer(), plan=PLAN,
        text_encoder=lambda: encoder, text_encoder_name="tiny",
    )  # fmt: skip
    assert [failure.clip for failure in result.skipped] == ["1K/bb.zip"]
    for mapping in ("first", "middle", "last", "mean"):
        shards = ShardDataset(tmp_path / "s", rays=mapping)  # type: ignore[arg-type]
        folder = EightFileDataset(prepared, mapping=mapping)  # type: ignore[arg-type]
        assert len(shards) == len(folder) == 6
        for one, other in zip(shards, folder, strict=True):
            assert torch.equal(one.latent, other.latent) and one.caption == other.caption and one.fps == other.fps
            assert torch.equal(one.padding_mask, other.padding_mask)
            torch.testing.assert_close(one.plucker, other.plucker, atol=1e-6, rtol=1e-5)
            torch.testing.assert_close(one.text.float(), other.text.float(), atol=0.02, rtol=0.02)
    assert shards[0].camera_poses is not None and shards[0].camera_poses.shape == (9, 4, 4)
    assert ShardDataset(tmp_path / "s")[0].plucker is None


def test_worker_processes_and_reruns_change_nothing(
    source: Path, prepared: Path, text_folder: Path, tmp_path: Path
) -> None:
    run(source, tmp_path / "w", text_folder, workers=2)
    before = contents(prepared)
    assert contents(tmp_path / "w") == before
    again = run(source, tmp_path / "w", text_folder, MeanTokenizer(fail_after=1))
    assert (again.written, again.already_done, again.samples) == (0, 6, 6)
    assert contents(tmp_path / "w") == before


@pytest.mark.parametrize("calls", [1, 2, 6, 11])
def test_an_interrupted_call_goes_on_where_it_was(
    source: Path, prepared: Path, text_folder: Path, tmp_path: Path, calls: int
) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(source, tmp_path / "k", text_folder, MeanTokenizer(fail_after=calls))
    assert not list((tmp_path / "k").glob("*.pth"))
    result = run(source, tmp_path / "k", text_folder)
    assert result.written == 6 - (calls - 1) // 2
    assert contents(tmp_path / "k") == contents(prepared)


def test_a_call_that_was_stopped_while_it_numbered_is_finished(
    source: Path, prepared: Path, text_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from nemo_cosmos.prepare import eight_files

    moves = iter(range(20))
    replace = os.replace

    def stop(old: Any, new: Any) -> None:
        if next(moves) == 11:
            raise KeyboardInterrupt
        replace(old, new)

    with monkeypatch.context() as patch:
        patch.setattr(eight_files.os, "replace", lambda old, new: stop(old, new) if ".parts/" in str(old) and str(
            new
        ).endswith((".pth", ".info.json")) else replace(old, new))  # fmt: skip
        with pytest.raises(KeyboardInterrupt):
            run(source, tmp_path / "n", text_folder)
    assert run(source, tmp_path / "n", text_folder).written == 0
    assert contents(tmp_path / "n") == contents(prepared)


def test_new_scenes_follow_and_changed_ones_keep_their_numbers(text_folder: Path, tmp_path: Path) -> None:
    source = tmp_path / "in"
    write_zip(source / "m.zip", scene(9))
    captions = {"m": "one", "a": "two"}
    source.joinpath("captions.json").write_text(json.dumps(captions))
    run(source, tmp_path / "out", text_folder, chunks=1)
    write_zip(source / "a.zip", scene(9))
    run(source, tmp_path / "out", text_folder, chunks=1)
    assert {n: e["number"] for n, e in read_numbers(tmp_path / "out").items()} == {"m/0": 0, "a/0": 1}
    source.joinpath("captions.json").write_text(json.dumps({**captions, "m": "new words"}))
    result = run(source, tmp_path / "out", text_folder, chunks=1)
    assert (result.written, result.samples) == (1, 2)
    assert json.loads((tmp_path / "out/0.info.json").read_text())["caption"] == "new words"


def test_missing_captions_are_found_before_anything_is_made(source: Path, text_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "c.json").write_text('{"aa": "x"}')
    with pytest.raises(InputError, match=r"3 scenes have no caption .*: bb, cc, dd; expected the key bb/0"):
        run(source, tmp_path / "out", text_folder, captions=tmp_path / "c.json", videos=tmp_path / "v")
    assert [p.name for p in tmp_path.iterdir()] == ["c.json"]


def test_a_seed_chooses_among_the_scenes(source: Path) -> None:
    def chosen(count: int, seed: int) -> set[str]:
        asked = SceneOptions(captions=source / "captions.json", count=count, seed=seed)
        return {clip.title for clip in open_source(source, "dl3dv", SourceOptions(scenes=asked)).clips}

    assert chosen(2, 1) < chosen(3, 1) < chosen(-1, 1) == {"aa", "bb", "cc", "dd"}
    assert len({frozenset(chosen(2, seed)) for seed in range(12)}) > 2


def test_no_usable_scene_is_an_error_that_leaves_nothing(text_folder: Path, tmp_path: Path) -> None:
    write_zip(tmp_path / "in" / "a.zip", scene(3))
    (tmp_path / "in" / "captions.json").write_text('{"a": "x"}')
    with pytest.raises(InputError, match=r"none of 2 chunks of scenes could be prepared: .*has 3 pictures"):
        run(tmp_path / "in", tmp_path / "out", text_folder)
    assert not (tmp_path / "out").exists()


def _rank(rank: int, port: int, source: Path, out: Path, text: Path) -> None:
    os.environ.update(RANK=str(rank), WORLD_SIZE="2", MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    assert run(source, out, text).written == 6
    dist.destroy_process_group()


def test_two_ranks_equal_one(source: Path, prepared: Path, text_folder: Path, tmp_path: Path) -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        port = server.getsockname()[1]
    context = multiprocessing.get_context("fork")
    ranks = [context.Process(target=_rank, args=(r, port, source, tmp_path / "r", text_folder)) for r in range(2)]
    for process in ranks:
        process.start()
    for process in ranks:
        process.join(120)
    assert [process.exitcode for process in ranks] == [0, 0]
    assert contents(tmp_path / "r") == contents(prepared)


def tool(folder: Path, *words: Any) -> subprocess.CompletedProcess[str]:
    script = Path(__file__).parents[2] / "tools" / "prepare_dataset.py"
    command = [sys.executable, str(script), *map(str, words)]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120, check=False)


def test_the_tool_tries_it_with_tiny_models(tmp_path: Path) -> None:
    write_zip(tmp_path / "in" / "good.zip", scene(58))
    (tmp_path / "in" / "cut.zip").write_bytes(write_zip(tmp_path / "x" / "cut.zip", scene(58)).read_bytes()[:5000])
    write_zip(tmp_path / "in" / "slip.zip", {**scene(58), "../../../out.png": picture(0)})
    done = tool(tmp_path, "--dataset_path", "in", "--tiny", "--height", 32, "--width", 48, "--workers", 0,
                "--clean_cache")  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "prepared 1 samples in" in done.stdout and "scenes/hour" in done.stdout
    assert "2 of 3 scenes skipped" in done.stdout and "leads out of the folder" in done.stdout
    out = tmp_path / "camera_ctrl_dataset_cached"
    assert torch.load(out / "0.video_latent.pth", weights_only=True).shape == (16, 8, 4, 6)
    assert torch.load(out / "0.plucker_embeddings.pth", weights_only=True).shape == (57, 6, 4, 6)
    assert [p.name for p in (tmp_path / "video_processing_cache").iterdir()] == ["tiny_models"]
    assert not list(tmp_path.rglob("out.png")) and len(json.loads((out / "skipped.json").read_text())) == 2
    wrong = tool(tmp_path, "--dataset_path", "in", "--tokenizer_dir", "nowhere", "--default_caption", "x")
    assert wrong.returncode == 2 and wrong.stderr.startswith("error: ") and wrong.stderr.count("\n") == 1
