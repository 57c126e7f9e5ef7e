"""The demo: steps are done once, a user's folder is cut to fit, and the whole chain runs at smoke size."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from nemo_cosmos.data.video import probe, read_frames, write_mp4
from nemo_cosmos.demo.clips import cut_clips, fitting_size, list_clips
from nemo_cosmos.demo.run import SIZES, run_demo
from nemo_cosmos.errors import InputError
from nemo_cosmos.steps import Step, StepLog

SMOKE = SIZES["smoke"]


def write_clips(folder: Path, count: int, frames: int = 12, size: tuple[int, int] = (48, 64)) -> None:
    (folder / "videos").mkdir(parents=True)
    (folder / "metas").mkdir()
    for number in range(count):
        video = torch.randint(0, 255, (3, 1, *size), dtype=torch.uint8).expand(3, frames, *size).contiguous()
        write_mp4(folder / "videos" / f"clip{number}.mp4", video, 8.0)
        (folder / "metas" / f"clip{number}.txt").write_text(f"caption {number}\n", encoding="utf-8")


def counting_step(folder: Path, name: str, request: object, done: list[str]) -> Step:
    def run() -> None:
        done.append(name)
        (folder / name).touch()

    return Step(name, request, run, [folder / name], f"do {name}")


def test_what_is_done_is_skipped_and_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    done: list[str] = []
    for _ in range(2):
        log = StepLog(tmp_path / "steps.json")
        log.perform([counting_step(tmp_path, "one", 1, done), counting_step(tmp_path, "two", 1, done)])
    assert done == ["one", "two"]
    assert "[2/2] two: done before in" in capsys.readouterr().out


def test_another_request_does_the_step_and_all_after_it_anew(tmp_path: Path) -> None:
    done: list[str] = []
    for request in (1, 2):
        steps = [counting_step(tmp_path, name, request if name == "two" else 0, done) for name in ("one", "two", "x")]
        StepLog(tmp_path / "steps.json").perform(steps)
    assert done == ["one", "two", "x", "two", "x"]


def test_interrupted_step_goes_on_with_its_outputs(tmp_path: Path) -> None:
    kept: list[bool] = []

    def interrupted() -> None:
        (tmp_path / "part").touch()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        StepLog(tmp_path / "steps.json").perform([Step("one", 1, interrupted, [tmp_path / "part"], "")])
    resumed = Step("one", 1, lambda: kept.append((tmp_path / "part").exists()), [tmp_path / "part"], "")
    StepLog(tmp_path / "steps.json").perform([resumed])
    assert kept == [True]


def test_removed_output_is_made_again(tmp_path: Path) -> None:
    done: list[str] = []
    StepLog(tmp_path / "steps.json").perform([counting_step(tmp_path, "one", 1, done)])
    (tmp_path / "one").unlink()
    StepLog(tmp_path / "steps.json").perform([counting_step(tmp_path, "one", 1, done)])
    assert done == ["one", "one"]


def test_damaged_log_is_named(tmp_path: Path) -> None:
    (tmp_path / "steps.json").write_text("{", encoding="utf-8")
    with pytest.raises(InputError, match=r"steps\.json is damaged"):
        StepLog(tmp_path / "steps.json")


def test_user_folder_is_cut_into_train_and_held_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_clips(tmp_path / "source", 6)
    write_mp4(tmp_path / "source/videos/short.mp4", torch.zeros(3, 2, 48, 64, dtype=torch.uint8), 8.0)
    (tmp_path / "source/videos/broken.mp4").write_bytes(b"not a video")
    for name in ("short", "broken"):
        (tmp_path / f"source/metas/{name}.txt").write_text("x", encoding="utf-8")
    cut_clips(tmp_path / "source", tmp_path / "out", SMOKE)
    train = sorted((tmp_path / "out/train/videos").glob("*.mp4"))
    held_out = sorted((tmp_path / "out/held_out/videos").glob("*.mp4"))
    assert len(held_out) == 1 and len(train) >= 5
    assert {file.stem.split("_")[0] for file in train}.isdisjoint(file.stem for file in held_out)
    for file in [*train, *held_out]:
        info = probe(file)
        assert info.frames == SMOKE.frames
        assert (info.height, info.width) == fitting_size(list_clips(tmp_path / "source"), SMOKE.side)
        assert (file.parents[1] / "metas" / f"{file.stem}.txt").is_file()
    assert "2 skipped" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("shape", "expected"), [((480, 640), (48, 64)), ((64, 64), (64, 64)), ((1024, 256), (128, 32))]
)
def test_size_keeps_the_shape_and_the_area(shape: tuple[int, int], expected: tuple[int, int], tmp_path: Path) -> None:
    write_clips(tmp_path / "source", 1, frames=2, size=shape)
    assert fitting_size(list_clips(tmp_path / "source"), 64) == expected


def test_user_folder_without_usable_clips_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"holds no \.mp4 files"):
        run_demo(tmp_path / "out", tmp_path / "empty", SMOKE)
    write_clips(tmp_path / "short", 3, frames=2)
    with pytest.raises(InputError, match="0 usable videos"):
        cut_clips(tmp_path / "short", tmp_path / "out2", SMOKE)


def test_thinning_keeps_fast_videos_in_motion(tmp_path: Path) -> None:
    (tmp_path / "source/videos").mkdir(parents=True)
    (tmp_path / "source/metas").mkdir()
    ramp = torch.arange(60, dtype=torch.uint8).mul(4).view(1, -1, 1, 1).expand(3, 60, 48, 64).contiguous()
    for name in ("a", "b"):
        write_mp4(tmp_path / f"source/videos/{name}.mp4", ramp, 30.0)
        (tmp_path / f"source/metas/{name}.txt").write_text("brighter", encoding="utf-8")
    cut_clips(tmp_path / "source", tmp_path / "out", SMOKE)
    held_out = next((tmp_path / "out/held_out/videos").glob("*.mp4"))
    assert probe(held_out).fps == pytest.approx(7.5)
    assert read_frames(held_out)[0, 1].float().mean() == pytest.approx(4 * 4, abs=4)


@pytest.fixture(scope="module")
def smoke(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The whole demo, a few steps of each kind, through its public command."""
    folder = tmp_path_factory.mktemp("demo")
    command = [sys.executable, "-m", "nemo_cosmos", "demo", "--size", "smoke", "--output", "out"]
    result = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout[-4000:] + result.stderr[-4000:]
    return folder


def test_the_whole_chain_writes_what_it_promises(smoke: Path) -> None:
    out = smoke / "out"
    names = {file.name for file in (out / "truth").glob("*.mp4")}
    assert len(names) == SMOKE.held_out
    assert {file.name for file in (out / "generated").glob("*.mp4")} == names
    metrics = [json.loads(line) for line in (out / "run/metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [line["step"] for line in metrics] == [1, 2, 3]
    assert {"loss", "edm_mse", "lr", "grad_norm", "seconds", "data_wait_seconds", "tokens_per_second"} <= set(
        metrics[0]
    )
    assert (out / "run/checkpoints/latest_checkpoint.txt").is_file()
    summary = json.loads((out / "summary.json").read_text(encoding="utf-8"))
    assert set(summary["seconds"]) == {"sample-data", "tokenizer", "prepare", "train", "generate", "report"}
    assert set(summary["psnr_db"]) == {"tokenizer", "generated", "frozen"}
    page = (out / "report.html").read_text(encoding="utf-8")
    assert page.count("<video ") == 2 * SMOKE.held_out and "experiment: demo_video2world" in page
    assert {path.name for path in smoke.iterdir()} == {"out"}


def test_second_call_skips_every_step(smoke: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in (smoke / "out").rglob("*") if path.name != "steps.json"}
    command = [sys.executable, "-m", "nemo_cosmos", "demo", "--size", "smoke", "--output", "out"]
    result = subprocess.run(command, cwd=smoke, capture_output=True, text=True, check=True)
    assert result.stdout.count("skipped") == 6
    assert before == {
        path: path.stat().st_mtime_ns for path in (smoke / "out").rglob("*") if path.name != "steps.json"
    }
