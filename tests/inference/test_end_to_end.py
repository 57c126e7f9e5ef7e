"""Real models of a few kilobytes: from a run folder to a video file."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import typer
from typer.testing import CliRunner

from nemo_cosmos.checkpoint.convert import convert
from nemo_cosmos.commands.generate import generate
from nemo_cosmos.data.video import probe, read_frames
from tests.inference import runs


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("generate")
    runs.write_models(path)
    runs.generate(path)
    return path


def frames(folder: Path, output: str = "out") -> torch.Tensor:
    return read_frames(folder / output / "video.mp4").int()


def test_a_run_folder_generates_a_playable_video(folder):
    info = probe(folder / "out" / "video.mp4")
    assert (info.frames, info.height, info.width, info.fps) == (9, 32, 48, pytest.approx(8))
    assert frames(folder).float().std() > 1


def test_the_same_seed_gives_the_same_video_and_another_seed_another(folder):
    runs.generate(folder, "again")
    assert torch.equal(frames(folder, "again"), frames(folder))
    runs.generate(folder, "other", seed=2)
    assert not torch.equal(frames(folder, "other"), frames(folder))


def test_ema_and_regular_weights_differ(folder):
    runs.generate(folder, "reg", kind="reg")
    assert not torch.equal(frames(folder, "reg"), frames(folder))


@pytest.mark.parametrize(
    ("option", "source"),
    [
        ("--run", "run/checkpoints/iter_000000007_ema_model.pt"),
        ("--model", "run/checkpoints/iter_000000007_ema_model.pt"),
        ("--model", "run"),
        ("--model", "run/transformer"),  # in the run folder, whose text length counts
    ],
)
def test_the_command(option, source, folder):
    """A file, a run and a diffusers folder of the same weights; --run is the older name of --model."""
    if source == "run/transformer":
        convert(folder / "run", folder / source, "diffusers")
    app = typer.Typer()
    app.command()(generate)
    arguments = [
        option, folder / source, "--tokenizer", folder / "tokenizer", "--overwrite",
        "--text-encoder", folder / "text", "--output", folder / "command", "--name", "video",
        "--input", folder / "clip.mp4", "--prompt", "a red disc moves left", "--height", 32, "--width", 48,
        "--num-frames", 9, "--num-steps", 3, "--crf", 0, "--no-guardrail", "--offload", "network",
        "--offload", "tokenizer", "--offload", "text_encoder",
    ]  # fmt: skip
    result = CliRunner().invoke(app, [str(a) for a in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    assert torch.equal(frames(folder, "command"), frames(folder))


def test_processes_that_share_a_video_make_the_same_one(folder):
    from tests.parallel.processes import run_processes

    run_processes(2, runs.generate, folder, "shared", log=folder / "logs")
    assert (frames(folder, "shared") - frames(folder)).abs().max() <= 1
    run_processes(2, runs.fail_on_the_first, folder, log=folder / "logs2")
