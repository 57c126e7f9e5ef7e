"""Numbers of the command line that no run can have: one line that names the option, before anything is read."""

from __future__ import annotations

import runpy
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from nemo_cosmos import cli
from nemo_cosmos.commands.options import LONGEST_TEXT
from nemo_cosmos.inference import video_cli
from nemo_cosmos.models.text import TEXT_LENGTH

TOOLS = Path(__file__).parents[1] / "tools"
HUGE = "9" * 20
PREPARE = ("prepare", "clips", "out", "--tokenizer", "tok", "--device", "cpu")
STATS = ("tokenizer", "stats", "--tokenizer", "tok", "--videos", "x.mp4", "--device", "cpu")
PLAN = ("plan", "experiment=video2world_7b_example_hdvila")
OPTIONS: list[tuple[tuple[str, ...], str, str]] = [
    *((("sample-data", "out"), f"--{name}", most) for name, most in (
        ("clips", HUGE), ("held-out", HUGE), ("frames", HUGE), ("fps", "1001"), ("seed", HUGE), ("size", "20000x16"),
    )),
    *((PREPARE, f"--{name}", most) for name, most in (
        ("frames", HUGE), ("fps", "1e9"), ("step", HUGE), ("stride", HUGE), ("text-length", "513"),
        ("samples-per-shard", HUGE), ("workers", HUGE), ("size", "16x99999"),
    )),
    *((STATS, f"--{name}", HUGE) for name in ("max-clips", "height", "width", "resolution")),
    (("preview", "shards", "--tokenizer", "tok", "--device", "cpu"), "--limit", HUGE),
    *((("bench", "--device", "cpu"), f"--{name}", most) for name, most in (
        ("layers", "1025"), ("steps", HUGE), ("latent", "1x1x20000"),
    )),
    *((("camera", "show", "dolly_in"), f"--{name}", most) for name, most in (
        ("frames", HUGE), ("fps", "1001"), ("start", HUGE), ("fov", "176"), ("size", "8x9999"),
    )),
    *((PLAN, name, most) for name, most in (
        ("gpus", "65537"), ("gpus_per_node", HUGE), ("gpu_memory", f"{HUGE}GB"), ("latent", "1x1x20000"),
    )),
]  # fmt: skip


def refusal(call: Callable[[], object], words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    sys.argv[1:] = words
    with pytest.raises(SystemExit) as ended:
        call()
    said = capsys.readouterr().err
    lines = [line for line in said.splitlines() if line.startswith("error: ")]
    assert ended.value.code == 2 and len(lines) == 1 and "Traceback" not in said, said
    return lines[0]


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["command"])
    (tmp_path / "clips").mkdir()
    (tmp_path / "clips/a.mp4").touch()
    (tmp_path / "clips/a.txt").write_text("a disc")
    (tmp_path / "clips/t5_xxl").mkdir()


@pytest.mark.parametrize(("command", "option", "most"), OPTIONS, ids=[f"{o[0][0]}-{o[1]}" for o in OPTIONS])
def test_commands(
    command: tuple[str, ...], option: str, most: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    before = sorted(tmp_path.rglob("*"))
    for value in ("-1", "nan", "", most):
        if value or option not in ("--latent", "latent"):  # Without a value: as if it were not given.
            assert option in refusal(cli.main, [*command, f"{option}={value}"], capsys)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("option", ["short_size", "temporal_window", "output_fps"])
@pytest.mark.parametrize("value", ["0", "-1", HUGE, "nan"])
def test_reconstruction(option: str, value: str, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--video_pattern=clips/a.mp4", "--checkpoint=tok", "--device=cpu", f"--{option}={value}"]
    assert f"--{option}: " in refusal(video_cli.main, words, capsys)


@pytest.mark.parametrize("value", ["0", "-1", HUGE, "nan"])
def test_tools(value: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(TOOLS))
    for script, option in (
        ("get_t5_embeddings", "--max_length"),
        ("get_t5_embeddings", "--batch_size"),
        ("get_t5_embeddings_from_cosmos_nemo_assets", "--max_length"),
        ("extract_images_from_videos", "--stride"),
        ("extract_images_from_videos", "--workers"),
        ("download_diffusion_example_data", "--N_videos"),
        ("download_tokenizer_example_data", "--N_videos"),
        ("gpu_check", "--layers"),
    ):
        call = partial(runpy.run_path, str(TOOLS / f"{script}.py"), run_name="__main__")
        if value == "0" and option == "--workers":
            continue  # Reading in the process itself.
        required = ["--input_dataset_dir=in", "--output_dataset_dir=out"] if script.startswith("extract") else []
        assert f"{option}: " in refusal(call, [*required, f"{option}={value}"], capsys)


def test_a_clip_must_fit_into_memory(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["sample-data", "out", "--frames=10000", "--size=4096x4096"]
    assert "--frames 10000 of --size 4096x4096" in refusal(cli.main, words, capsys)


def test_the_scripts_know_the_longest_text() -> None:
    assert LONGEST_TEXT == TEXT_LENGTH
