"""The packaged weights through the commands, as the released ones."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

import nemo_cosmos as nc
from nemo_cosmos.cli import app
from nemo_cosmos.commands import doctor
from nemo_cosmos.config import TrainConfig, load_config
from nemo_cosmos.data.manifest import Manifest
from nemo_cosmos.data.video import read_frames, write_mp4
from nemo_cosmos.doctor.experiment import check_experiment
from nemo_cosmos.errors import InputError
from nemo_cosmos.models.video_tokenizer import open_tokenizer
from nemo_cosmos.reconstruct import video_cli
from nemo_cosmos.tiny import PARTS, TINY
from tests.tiny.model import NETWORKS

EXAMPLES = Path(__file__).parents[2] / "examples"
SMALL = {"height": 32, "width": 48, "num_frames": 5, "num_steps": 2}


def run_example(name: str, *flags: Any) -> None:
    """One of the scripts in ``examples/``, in this process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [name, *map(str, flags)])
        runpy.run_path(str(EXAMPLES / name), run_name="__main__")


def command(*words: Any) -> str:
    """What the command line says; raises what it ends with."""
    result = CliRunner().invoke(app, [str(word) for word in words])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.output


def flags(values: dict[str, Any], dash: str = "-") -> list[str]:
    return [f"--{name.replace('_', dash)}={value}" for name, value in values.items()]


def test_the_python_interface_needs_nothing_but_the_name(here: Path) -> None:
    pipe = nc.Pipeline.from_pretrained(TINY)
    first = pipe("A red cube moves left.", image="frame.png", **SMALL)  # type: ignore[arg-type]
    assert first.shape == (5, 32, 48, 3) and first.dtype == np.uint8
    usual = pipe("A red cube moves left.", image="frame.png", num_steps=2)
    assert usual.shape == (17, 96, 128, 3)
    with pytest.raises(InputError, match="name the tokenizer"):
        nc.Pipeline.from_pretrained("run")
    command("generate", "--model", TINY, "--prompt=A red cube moves left.", "--input=frame.png", "--output=out",
            "--crf=0", *flags(SMALL))  # fmt: skip
    command("generate", "--model", TINY, f"--tokenizer={TINY}", f"--text-encoder={TINY}", "--name=named", "--crf=0",
            "--prompt=A red cube moves left.", "--input=frame.png", "--output=out", *flags(SMALL))  # fmt: skip
    one, other = (read_frames(f"out/{name}.mp4") for name in ("output", "named"))
    assert one.shape == (3, 5, 32, 48) and (one == other).all()


@pytest.mark.parametrize("root", [TINY, "a copy"])
def test_the_predict1_scripts_take_the_small_networks(root: str, here: Path, weights: Path) -> None:
    if root != TINY:
        Path(root).symlink_to(weights)
    sizes = flags({"height": 32, "width": 48, "num_video_frames": 5, "num_steps": 2}, "_")
    common = ["--checkpoint_dir", root, "--disable_prompt_upsampler", "--prompt", "a cube", "--overlap_frames", 1]
    run_example("video2world.py", *common, "--input_image_or_video_path", "frame.png", *sizes)
    run_example("text2world.py", *common[:-2], "--video_save_name", "text", *sizes)
    assert read_frames("outputs/output.mp4").shape == read_frames("outputs/text.mp4").shape == (3, 5, 32, 48)


def test_the_predict1_scripts_take_sizes_and_names_of_the_small_networks(here: Path) -> None:
    run_example("text2world.py", "--checkpoint_dir", TINY, "--disable_prompt_upsampler", "--prompt", "a cube",
                "--diffusion_transformer_dir", NETWORKS[1], "--tokenizer_dir", PARTS["tokenizer"],
                "--num_steps", 2)  # fmt: skip
    assert read_frames("outputs/output.mp4").shape == (3, 17, 96, 128)
    with pytest.raises(SystemExit):
        run_example("text2world.py", "--checkpoint_dir", TINY, "--disable_prompt_upsampler", "--prompt", "a cube",
                    "--diffusion_transformer_dir", "Cosmos-Predict1-7B-Text2World")  # fmt: skip


@pytest.mark.parametrize("named", [["--model_size", "Tiny"], []])
def test_the_predict2_scripts_take_the_small_networks(named: list[str], here: Path) -> None:
    common = ["--checkpoint_dir", TINY, *named, "--prompt", "a cube", "--num_steps", 2]
    run_example("text2image.py", *common, "--save_path", "image.jpg")
    assert Image.open("image.jpg").size == (128, 96)
    run_example("video2world_predict2.py", *common, "--input_path", "frame.png", "--save_path", "video.mp4",
                "--height", 32, "--width", 48, "--num_frames", 5)  # fmt: skip
    assert read_frames("video.mp4").shape == (3, 5, 32, 48)


def test_scripts_take_the_name_where_a_path_is_asked_for(here: Path) -> None:
    run_example("video2world_predict2.py", "--dit_path", f"{TINY}/{NETWORKS[2]}", "--tokenizer_dir", TINY,
                "--text_encoder_dir", TINY, "--prompt", "a cube", "--num_steps", 2, "--input_path", "frame.png",
                "--save_path", "video.mp4", "--height", 32, "--width", 48, "--num_frames", 5)  # fmt: skip
    run_example("video2world.py", "--diffusion_transformer_dir", TINY, "--tokenizer_dir", TINY, "--text_encoder_dir",
                TINY, "--prompt", "a cube", "--num_steps", 2, "--input_image_or_video_path", "frame.png",
                "--overlap_frames", 1, "--height", 32, "--width", 48, "--num_video_frames", 5,
                "--disable_prompt_upsampler")  # fmt: skip
    assert read_frames("video.mp4").shape == read_frames("outputs/output.mp4").shape


def test_no_small_network_of_several_cameras(here: Path) -> None:
    for script, more in (("multiview.py", ["--input_path", "frame.png", "--model_size", "Tiny"]),
                         ("text2world_multiview.py", [])):  # fmt: skip
        with pytest.raises(SystemExit) as ended:
            run_example(script, "--checkpoint_dir", TINY, "--prompt", "a car", *more)
        assert ended.value.code == 2


def test_data_and_tokenizer_commands_take_the_name(here: Path, weights: Path) -> None:
    pixels = np.arange(9 * 32 * 48 * 3, dtype=np.uint32).reshape(9, 32, 48, 3) * 7 % 256
    clip = np.moveaxis(pixels.astype(np.uint8), -1, 0)
    Path("clips").mkdir()
    write_mp4(Path("clips/one.mp4"), torch.from_numpy(clip.copy()), fps=8)
    Path("clips/one.txt").write_text("a clip")
    command("prepare", "clips", "shards", f"--tokenizer={TINY}", f"--text-encoder={TINY}", "--frames=5",
            "--size=32x48", "--workers=0")  # fmt: skip
    assert Manifest.load(Path("shards")).tokenizer == open_tokenizer(TINY).identity
    command("preview", "shards", f"--tokenizer={TINY}", "--out=page.html")
    command("tokenizer", "export", TINY, "copy", "--format=folder")
    assert open_tokenizer("copy").identity.sha256 == open_tokenizer(TINY).identity.sha256
    with pytest.raises(InputError, match="belongs to the package"):
        command("tokenizer", "stats", f"--tokenizer={TINY}", "--videos=clips/*.mp4")
    video_cli.run(["--video_pattern=clips/one.mp4", f"--checkpoint={TINY}", "--mode=torch", "--device=cpu",
                   "--output_dir=again"])  # fmt: skip
    assert read_frames("again/one.mp4").shape == (3, 9, 32, 48)


def test_doctor_and_launch_know_the_name(here: Path) -> None:
    from nemo_cosmos.launch.places import _reads

    config = load_config(TrainConfig, [
        "experiment=tiny_predict1_video2world", f"model.init_from={TINY}", "data.mode=online",
        f"data.tokenizer_path={TINY}", f"data.text_encoder={TINY}", "data.num_frames=5", "data.size=[32,48]",
    ])  # fmt: skip
    found = {finding.subject: finding for finding in check_experiment(config)}
    assert found["weights"].verdict == "ok" and found["weights"].text == f"{TINY} fits predict1-tiny-video2world"
    assert [key for key, _ in _reads(config)] == ["data.path"]


def test_doctor_trains_from_the_packaged_weights_and_generates(
    here: Path, weights: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    doctor._write_latents(here / "shards")
    run = load_config(TrainConfig, doctor._settings(here, steps=2, precision="fp32"))
    found = {finding.subject: finding for finding in check_experiment(run)}
    assert {finding.verdict for finding in found.values()} == {"ok"}, found
    assert "fits predict1-tiny-video2world" in found["weights"].text
    capsys.readouterr()
    (finding,) = doctor._generation()
    assert finding.verdict == "ok" and finding.text.startswith(f"5 frames of 32 x 48 pixels by {TINY}, ")
    assert not capsys.readouterr().out
    monkeypatch.setattr("nemo_cosmos.tiny.FOLDER", weights / "nowhere")
    (finding,) = doctor._generation()
    assert finding.verdict == "note" and "without nemo-cosmos-tiny" in finding.text
