"""Predict1's multiview scripts as a user starts them, on tiny networks in the released layout."""

from __future__ import annotations

import json
import os
import runpy
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.distributed.run import main

from nemo_cosmos.data.video import probe, read_frames, write_mp4
from nemo_cosmos.inference.known_views_flags import CAPTIONS
from tests.inference import rigs

ROOT = Path(__file__).parents[2]
CAMERAS = ["front", *CAPTIONS]
SMALL = ["--checkpoint_dir", "checkpoints", "--height", "32", "--width", "48", "--num_steps", "2"]
OFFLOAD = [
    f"--offload_{part}"
    for part in ("diffusion_transformer", "tokenizer", "text_encoder_model", "prompt_upsampler", "guardrail_models")
]
Run = Callable[..., int]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("released")
    rigs.write_released(folder / "checkpoints")
    rigs.write_clips(folder / "clips", CAMERAS)
    return folder


@pytest.fixture
def run(world: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs a script in the folder with ``checkpoints``; gives its exit status."""
    monkeypatch.chdir(world)

    def call(kind: str, *words: Any) -> int:
        script = str(ROOT / "examples" / f"{kind}_multiview.py")
        monkeypatch.setattr(sys, "argv", [script, *SMALL, *map(str, words)])
        try:
            runpy.run_path(script, run_name="__main__")
        except SystemExit as ended:
            return int(ended.code or 0)
        return 0

    return call


def views(folder: Path) -> Tensor:
    return torch.stack([read_frames(folder / f"{name}.mp4") for name in CAMERAS]).int()


def test_text2world(run: Run) -> None:
    words = ["--prompt", "a car drives", "--prompt_left", "trees", "--num_video_frames", 9]
    flags = ["--fps", 12, "--seed", 3, "--guidance", 5, "--negative_prompt", "bad",
             "--frame_repeat_negative_condition", 4, "--disable_guardrail", "--disable_prompt_upsampler"]  # fmt: skip
    assert run("text2world", *words, *flags, "--video_save_name", "drive", "--video_save_folder", "videos") == 0
    made = sorted(str(file.relative_to("videos")) for file in Path("videos").rglob("*") if file.is_file())
    assert made == sorted([*(f"drive{end}" for end in (".mp4", ".json", ".txt", "_grid.mp4")),
                           *(f"drive/{name}.mp4" for name in CAMERAS)])  # fmt: skip
    whole, grid = probe("videos/drive.mp4"), probe("videos/drive_grid.mp4")
    assert (whole.height, whole.width, whole.frames, whole.fps) == (32, 48, 54, pytest.approx(12))
    assert (grid.height, grid.width, grid.frames) == (64, 144, 9)
    settings = json.loads(Path("videos/drive.json").read_text())["settings"]
    assert (settings["seed"], settings["guidance"], settings["negative_prompt"]) == (3, 5, "bad")
    assert [camera[3] for camera in settings["rig"]["cameras"]] == [0, 0, 0, 0, 4, 4]
    captions = dict(line.split(": ", 1) for line in Path("videos/drive.txt").read_text().splitlines())
    assert captions == {"front": "a car drives", **CAPTIONS, "left": "trees"}
    assert run("text2world", *words, *flags, *OFFLOAD, "--video_save_folder", "offloaded") == 0
    assert torch.equal(views(Path("offloaded/output")), views(Path("videos/drive")))


def test_video2world(run: Run) -> None:
    together = torch.cat([read_frames(f"clips/{name}.mp4") for name in CAMERAS], dim=2)
    write_mp4("below.mp4", together.contiguous(), 8, quality=0)
    write_mp4("after.mp4", torch.cat(together.chunk(6, dim=2), dim=1).contiguous(), 8, quality=0)
    Path("captions.txt").write_text("".join(f"{name} shows trees\n" for name in CAMERAS))
    inputs = {"folder": ["clips"], "below": ["below.mp4", "--input_stacking", "vertical"], "after": ["after.mp4"]}
    for name, given in inputs.items():
        words = ["--input_image_or_video_path", *given, "--num_input_frames", 9, "--num_video_frames", 17,
                 "--prompt", "captions.txt", "--video_save_name", name]  # fmt: skip
        assert run("video2world", *words) == 0, name
    made = {name: views(Path("outputs") / name) for name in inputs}
    assert made["folder"].shape == (6, 3, 17, 32, 48)
    for name in ("below", "after"):
        assert (made[name] - made["folder"]).abs().float().mean() < 8, name
    assert Path("outputs/folder.txt").read_text() == "".join(f"{name}: {name} shows trees\n" for name in CAMERAS)


def test_batch_of_video2world(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    swapped = {**{name: f"clips/{name}.mp4" for name in CAMERAS}, "left": "clips/right.mp4", "right": "clips/left.mp4"}
    entries = [{"prompt": "go", "visual_input": "clips"}, {"prompt": {"front": "go"}, "visual_input": swapped}]
    Path("batch.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    words = ["--batch_input_path", "batch.jsonl", "--num_video_frames", 9, "--video_save_folder", "batch"]
    assert run("video2world", *words) == 0
    first, second = (views(Path("batch") / name) for name in "01")
    assert (first - second).abs().amax(dim=(1, 2, 3, 4))[1:3].min() > 0
    assert run("text2world", *words) == 2
    assert "which takes no input image or video" in capsys.readouterr().err


def test_torchrun_gives_what_one_process_gives(run: Run, world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["--prompt", "go", "--input_image_or_video_path", "clips", "--num_video_frames", "9"]
    assert run("video2world", *words, "--video_save_name", "alone") == 0
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]))
    script = str(ROOT / "examples" / "video2world_multiview.py")
    main(["--standalone", "--nproc_per_node=2", script, *SMALL, *words, "--num_gpus", "2", "--video_save_name", "two"])
    alone, two = (views(world / "outputs" / name) for name in ("alone", "two"))
    assert (alone - two).abs().max() <= 1
