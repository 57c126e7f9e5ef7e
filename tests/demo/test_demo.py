"""The whole demo at smoke size: clips, shards, both trainings, generated videos, report."""

from __future__ import annotations

import json
import shutil
from html.parser import HTMLParser
from pathlib import Path

import pytest
from typer.testing import CliRunner

from nemo_cosmos.cli import app
from nemo_cosmos.config import TrainConfig, load_config
from nemo_cosmos.demo import run as demo
from nemo_cosmos.demo.sizes import SIZES
from nemo_cosmos.demo.summary import summary_lines
from nemo_cosmos.demo.weights import NETWORK, Weights
from nemo_cosmos.errors import InputError
from nemo_cosmos.tiny import TINY
from tests.demo.standin import write_clip

SMOKE = SIZES["smoke"]
STEPS = [
    "sample-data", "clips", "prepare", "train", "train LoRA", "generate base", "generate post-trained",
    "generate lora", "report",
]  # fmt: skip


def call_here(name: str, command: list[str]) -> None:
    """The command in this process: starting Python nine times would take most of the test's time."""
    with pytest.raises(SystemExit) as ended:
        app(command[3:])
    assert ended.value.code == 0, name


@pytest.fixture(scope="module")
def out(weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("demo") / "out"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(demo, "call_command", call_here)
        demo.run_demo(folder, None, SMOKE, weights)
    return folder


def test_every_step_is_done_and_every_figure_is_there(out: Path) -> None:
    summary = json.loads((out / "summary.json").read_text(encoding="utf-8"))
    assert list(summary["seconds"]) == STEPS
    assert summary["training_steps"] == {"post-training": 2, "LoRA": 2}
    assert set(summary["groups"]) == {"held_out_windows", "held_out_scenes"}
    for group in summary["groups"].values():
        assert group["count"] == 1
        for version in ("base", "post_trained", "lora", "reconstruction", "frozen"):
            assert 5 < group[version]["psnr_db"] < 60 and -1 <= group[version]["ssim"] <= 1
            assert group[version]["feature_distance"] >= 0 and len(group[version]["psnr_of_frames"]) == 4
    for version in ("base", "post_trained", "lora"):
        made = {file.stem for file in (out / "generated" / version).glob("*.mp4")}
        assert made == set(summary["windows"]) and len(made) == 2
    base, trained = (summary["windows"][name] for name in summary["windows"])
    assert base["base"] != base["post_trained"] and trained["base"] != trained["post_trained"]


def test_page_is_whole_and_loads_nothing(out: Path) -> None:
    class Reader(HTMLParser):
        sources: list[str] = []
        tags: list[str] = []

        def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
            self.tags.append(tag)
            self.sources += [value or "" for name, value in attributes if name in ("src", "href")]

    reader = Reader()
    text = (out / "report.html").read_text(encoding="utf-8")
    reader.feed(text)
    assert reader.sources and all(source.startswith("data:") for source in reader.sources)
    assert reader.tags.count("video") == 5 * 2  # truth, three networks, tokenizer, of two windows
    assert reader.tags.count("svg") == 2 + 2  # a curve of each group, two of the trainings
    for words in ("Held-out windows", "Held-out scenes", "Windows of 5 frames", "experiment: demo_video2world"):
        assert words in text
    assert text.count("aria-label=") == reader.tags.count("video") + reader.tags.count("svg")
    assert (
        "clips rendered by nemo-cosmos sample-data" in text
        and "all of its weights for 2 steps, once low-rank adapters (LoRA) for 2," in text
    )


def test_windows_that_were_trained_on_have_no_figures() -> None:
    groups = {"held_out_windows": {"count": 0, "reason": "No window is held out."}, "training_windows": {"count": 3}}
    assert summary_lines({"groups": groups}) == [
        "No window is held out.", "training windows (3): shown in the report, without figures",
    ]  # fmt: skip


def test_second_call_skips_every_step(
    out: Path, weights: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo, "call_command", lambda *arguments: pytest.fail("a step was done again"))
    result = CliRunner().invoke(
        app, ["demo", "--size", "smoke", "--output", str(out), "--checkpoint-dir", str(weights)]
    )
    assert result.exit_code == 0 and result.stdout.count("skipped") == len(STEPS)
    assert "held-out windows (1): base " in result.stdout and ", frozen first frame " in result.stdout


def test_other_weights_are_no_reason_to_skip(weights: Path, tmp_path: Path) -> None:
    first = demo.find_weights(weights).digest()
    copied = Path(shutil.copytree(weights, tmp_path / "tiny"))
    assert demo.find_weights(copied).digest() == first
    with (copied / NETWORK).open("ab") as file:
        file.write(b"more")
    assert demo.find_weights(copied).digest() != first


def test_what_is_missing_of_weights_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"has no Cosmos-Predict1-Tiny-Video2World/model\.pt"):
        demo.run_demo(tmp_path / "out", None, SMOKE, tmp_path)


def test_a_folder_without_videos_ends_before_anything_is_written(weights: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    write_clip(tmp_path / "short", "c0", frames=2)
    for name in ("empty", "short", "nowhere"):
        with pytest.raises(InputError, match=name):
            demo.run_demo(tmp_path / "out", tmp_path / name, SMOKE, weights)
    assert not (tmp_path / "out").exists()


def test_steps_on_a_folder_take_its_size_and_length(weights: Path, tmp_path: Path) -> None:
    for number in range(2):
        write_clip(tmp_path / "in", f"c{number}", frames=24, size=(80, 48))
    made = demo.Demo(demo.Paths(tmp_path / "out"), tmp_path / "in", SIZES["full"], demo.find_weights(weights))
    assert (made.frames, made.pixels) == (9, (144, 80))


@pytest.mark.parametrize(
    ("step", "experiment"), [("train", "demo_video2world"), ("train LoRA", "demo_video2world_lora")]
)
def test_the_experiments_say_what_the_demo_runs(step: str, experiment: str, weights: Path, tmp_path: Path) -> None:
    packaged = Weights(TINY, TINY, TINY, weights)
    made = demo.Demo(demo.Paths(tmp_path), None, SIZES["full"], packaged)
    (words,) = [one.command.split() for one in made.steps() if one.name == step]
    assert "--nproc_per_node=2" in words
    run = load_config(TrainConfig, words[words.index("train") + 1 :])
    assert run == load_config(TrainConfig, [f"experiment={experiment}", f"data.path={tmp_path}/shards",
                                            f"output_dir={run.output_dir}"])  # fmt: skip
    assert run.model.init_from == TINY
