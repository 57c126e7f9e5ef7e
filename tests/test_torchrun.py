"""Every documented torchrun line goes through the real torchrun and arrives at the command as it is written."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer
from PIL import Image
from torch.distributed.run import config_from_args, get_args_parser, main, parse_args
from typer.testing import CliRunner

from nemo_cosmos.checkpoint.files import MODEL_CONFIG, save_tensors, weights_file, write_latest
from nemo_cosmos.cli import app
from nemo_cosmos.inference import predict2_flags
from nemo_cosmos.inference.known_flags import build_parser
from nemo_cosmos.models.dit import DiTConfig, build_dit
from tests.documented import ROOT, Command, documented_commands
from tests.inference.runs import WIDTH, write_models
from tests.models.wan import save_tiny_wan_vae
from tests.parallel.runs import small_overrides
from tests.training.shards import write_shards

LINES = [command for command in documented_commands() if command.words[0] == "torchrun" and command.complete]
SINGLE_PROCESS_ONLY = {"generate --run", "camera show --start"}
"""Older names of options, which the pages offer without torchrun alone."""


def kind(command: Command) -> str:
    """The verb or script that a line starts."""
    program, arguments = command.program
    words = [word for word in arguments if re.fullmatch(r"[a-z]+", word)]
    return program if program != "nemo-cosmos" else " ".join(words[: 2 if words[0] == "tokenizer" else 1])


def options() -> Iterator[tuple[str, str]]:
    """(command, option) of everything that this project lets a user start."""

    def walk(command: object, words: list[str]) -> Iterator[tuple[str, str]]:
        for parameter in command.params:  # type: ignore[attr-defined]
            for option in (*parameter.opts, *parameter.secondary_opts):
                if option.startswith("-"):
                    yield " ".join(words), option
        for name, child in getattr(command, "commands", {}).items():
            yield from walk(child, [*words, name])

    yield from walk(typer.main.get_command(app), [])
    for script in ("Video2World", "Text2World"):
        for action in build_parser(script, "")._actions:  # type: ignore[arg-type]
            yield from ((script, option) for option in action.option_strings)
    for kind_ in ("text2image", "video2world"):
        for action in predict2_flags.build_parser(kind_, "")._actions:  # type: ignore[arg-type]
            yield from ((f"{kind_} of Predict2", option) for option in action.option_strings)
    for folder in ("nemo_cosmos", "tools", "bench"):
        for file in (ROOT / folder).rglob("*.py"):
            for option in re.findall(r"add_argument\(\s*\"(-[\w-]+)\"", file.read_text(encoding="utf-8")):
                yield file.name, option


def test_no_option_abbreviates_one_of_torchruns() -> None:
    """torchrun reads abbreviations of its options wherever they stand, those behind the script's name too."""
    theirs = [option for action in get_args_parser()._actions for option in action.option_strings]
    ours = {(command, option) for command, option in options() if option not in ("--help", "-h")}
    assert len({command for command, _ in ours}) > 15
    taken = {f"{command} {option}" for command, option in ours if any(name.startswith(option) for name in theirs)}
    assert taken == SINGLE_PROCESS_ONLY


@pytest.mark.parametrize("command", LINES, ids=lambda command: f"{command.page}-{command.text[-60:]}")
def test_torchrun_hands_the_line_over_as_written(command: Command) -> None:
    _, entry, passed = config_from_args(parse_args(command.words[1:]))
    _, arguments = command.program
    assert [*([entry] if isinstance(entry, str) else []), *passed][-len(arguments) :] == arguments


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the names that the pages use lead to models and data of a few kilobytes."""
    folder = tmp_path_factory.mktemp("world")
    write_models(folder)
    network = DiTConfig.preset("tiny-text2world", hidden_size=64, num_layers=2, adaln_lora_dim=8, text_width=WIDTH)
    saves = folder / "text_run" / "checkpoints"
    saves.mkdir(parents=True)
    save_tensors(weights_file(saves, 7, "ema"), build_dit(network).to_original())
    (saves / MODEL_CONFIG).write_text(json.dumps(network.to_dict()))
    write_latest(saves, 7)
    second = DiTConfig.preset(
        "tiny-predict2-video2world", hidden_size=64, num_layers=2, adaln_lora_dim=8, text_width=WIDTH
    )
    (folder / "predict2").mkdir()
    save_tensors(folder / "predict2" / "model.pt", build_dit(second).to_original())
    (folder / "predict2" / MODEL_CONFIG).write_text(json.dumps(second.to_dict()))
    save_tiny_wan_vae(folder / "wan")
    places = {
        "checkpoints/posttraining/diffusion_video2world/video2world_7b_example_hdvila": "run",
        "checkpoints/Cosmos-Predict1-7B-Video2World": "run",
        "checkpoints/Cosmos-Predict1-7B-Text2World": "text_run",
        "checkpoints/Cosmos-Tokenize1-CV8x8x8-720p": "tokenizer",
        "checkpoints/google-t5/t5-11b": "text",
        "datasets/hdvila/videos/a.mp4": "clip.mp4",
    }
    for place, target in places.items():
        (folder / place).parent.mkdir(parents=True, exist_ok=True)
        (folder / place).symlink_to(folder / target)
    (folder / "datasets/hdvila/metas").mkdir()
    (folder / "datasets/hdvila/metas/a.txt").write_text("a red disc moves left")
    Image.new("RGB", (48, 32), (200, 30, 30)).save(folder / "first_frame.jpg")
    write_shards(folder / "shards", shape=(3, 4, 6))
    return folder


GENERATED = ["--height", "32", "--width", "48"]
SMALL_TRAINING = [
    *small_overrides(Path("shards"), Path("train_run"))[1:], "trainer.max_steps=1", "trainer.precision=fp32",
    "model.init_from=null", "parallel=single",
]  # fmt: skip
SMALL_TOKENIZER_TRAINING = [
    "trainer.device=cpu", "model.overrides={channels:4,channels_mult:[1,2,2],num_res_blocks:1,chunk_frames:9}",
    "model.init_from=null", "data.train=datasets/hdvila/videos/*.mp4", "data.val=null", "data.num_frames=9",
    "data.crop=[16,16]", "data.resolution=null", "data.num_workers=0", "data.global_batch=2", "data.micro_batch=1",
    "trainer.max_steps=1", "loss.perceptual.weights=random", "output_dir=tokenizer_run",
    "checkpoint.statistics_clips=1",
]  # fmt: skip
# What is added to a line so that it takes seconds; each is the only real run of its command.
SMALLER = {
    "prepare": (2, ["--frames", "9", "--size", "32x48"], "datasets/hdvila_shards/manifest.json"),
    "train": (1, SMALL_TRAINING, "train_run/checkpoints/iter_000000001_ema_model.pt"),
    "tokenizer train": (1, SMALL_TOKENIZER_TRAINING, "tokenizer_run/checkpoints/latest_checkpoint.txt"),
    "generate": (2, [*GENERATED, "--num-steps", "2", "--num-frames", "9", "--text-encoder",
                     "checkpoints/google-t5/t5-11b"], "outputs/videos/output.mp4"),
    "examples/video2world.py": (1, [*GENERATED, "--num_steps", "2", "--num_video_frames", "9"], "outputs/output.mp4"),
    "examples/video2world_predict2.py": (
        2, [*GENERATED, "--num_steps", "2", "--num_frames", "9", "--dit_path", "predict2/model.pt",
            "--tokenizer", "wan", "--text_encoder", "checkpoints/google-t5/t5-11b",
            "--disable_prompt_refiner"], "output/robot_14b.mp4",
    ),
    "examples/text2world.py": (
        1, [*GENERATED, "--num_steps", "2", "--num_video_frames", "9"], "outputs/robot.mp4",
    ),
}  # fmt: skip


def start(command: Command, processes: int, added: list[str], world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """torchrun with a documented line in ``world``; raises when a process fails."""
    # Of a line for several nodes this is the only one.
    words = [word for word in command.words[1:] if not word.startswith(("--nnodes=", "--rdzv_"))] + added
    for i, word in enumerate(words):
        if word.startswith("--nproc_per_node="):
            words[i] = f"--nproc_per_node={processes}"
        elif word.startswith("examples/"):
            words[i] = str(ROOT / word)
        elif word == "google-t5/t5-11b":
            words[i] = f"checkpoints/{word}"
        elif words[i - 1] == "--num_gpus":
            words[i] = str(processes)
    monkeypatch.chdir(world)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]))
    main(["--standalone", *words])


@pytest.mark.parametrize("verb", SMALLER)
def test_documented_line_runs(verb: str, world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One line of each command, with tiny data and settings."""
    processes, added, made = SMALLER[verb]
    start(next(line for line in LINES if kind(line) == verb), processes, added, world, monkeypatch)
    assert (world / made).is_file()


@pytest.mark.parametrize("line", sorted({line.text for line in LINES if "train" in kind(line)}))
def test_documented_training_line_starts(line: str, world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every experiment, as far as its resolved configuration, with the words that torchrun hands over."""
    command = Command("", line, True)
    _, _, passed = config_from_args(parse_args(command.words[1:]))
    assert passed[:3] == ["-u", "-m", "nemo_cosmos"]
    monkeypatch.chdir(world)
    result = CliRunner().invoke(app, [*passed[3:], "--dryrun"])
    assert result.exit_code == 0, result.output


ELSEWHERE = {
    "examples/multiview.py": "tests/inference/test_multiview_commands.py",
    "examples/text2world_multiview.py": "tests/inference/test_multiview_scripts.py",
    "examples/video2world_multiview.py": "tests/inference/test_multiview_scripts.py",
    "examples/camera_control.py": "tests/inference/pipelines/test_camera.py",
    "tools/prepare_dataset.py": "tests/prepare/test_eight_files.py",
}
"""Scripts that tests of their own start on two processes, or whose flags they hand to what does."""


def test_every_documented_line_is_started() -> None:
    assert {kind(line) for line in LINES} == SMALLER.keys() | ELSEWHERE.keys()
