"""A run continues with the settings of its configuration, or says in one line why it cannot."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from nemo_cosmos.checkpoint.files import latest_step, saved_steps
from nemo_cosmos.config import TrainConfig
from nemo_cosmos.errors import InputError
from nemo_cosmos.lock import TRAINING_LOCK, lock_folder
from nemo_cosmos.training.run import train
from tests.parallel.processes import run_processes
from tests.parallel.runs import SMALL, losses, small_run
from tests.training.shards import write_shards


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_shards(tmp_path_factory.mktemp("data") / "shards", shape=(5, 10, 6))


@pytest.fixture(scope="module")
def saved(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four steps, saved after two and at the end."""
    output = tmp_path_factory.mktemp("saved") / "run"
    cfg = small_run(shards, output, "trainer.max_steps=4", "checkpoint.every_n_steps=2")
    run_processes(1, train, cfg, log=output / "logs")
    return output


@pytest.fixture
def run(saved: Path, tmp_path: Path) -> Iterator[Path]:
    """A copy, in which nothing may change when it is refused."""
    copy = Path(shutil.copytree(saved, tmp_path / "run"))
    yield copy


def refuse(cfg: TrainConfig, message: str) -> None:
    before = {path: path.stat().st_mtime_ns for path in Path(cfg.output_dir).rglob("*") if path.is_file()}
    with pytest.raises(InputError, match=message):
        train(cfg)
    assert before == {path: path.stat().st_mtime_ns for path in Path(cfg.output_dir).rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            [f"model.overrides={SMALL.replace('num_layers: 4', 'num_layers: 3')}"],
            "num_layers=4, the configuration says 3",
        ),
        (
            [f"model.overrides={SMALL.replace('num_layers: 4', 'num_layers: 5')}"],
            "num_layers=4, the configuration says 5",
        ),
        (["model.preset=tiny-text2world"], "condition_mask=True, the configuration says False"),
        (["ema.enabled=false"], "ema.enabled=true, the configuration says false"),
        (["lora.enabled=true"], "all weights trained"),
    ],
)
def test_what_cannot_change(overrides: list[str], message: str, shards: Path, run: Path) -> None:
    refuse(small_run(shards, run, *overrides), message)


@pytest.mark.parametrize(
    "overrides, message",
    [
        (["objective=edm"], "trained with rectified_flow: choose objective=rectified_flow"),
        (["objective.sigma_data=0.4"], "objective.sigma_data=0.4 has no effect with objective.name=rectified_flow"),
        (["objective.condition.min_frames=3"], "min_frames=3 is more than max_frames=2"),
        (["objective.high_sigma_range=[200]"], "expected .lowest,highest."),
        (["objective.high_sigma_range=[200,100]"], "expected .lowest,highest."),
    ],
)
def test_settings_that_are_not_the_objectives(
    overrides: list[str], message: str, shards: Path, tmp_path: Path
) -> None:
    refuse(small_run(shards, tmp_path / "run", *overrides, preset="tiny-predict2-video2world"), message)


def test_several_saves_without_the_file_that_names_the_newest(shards: Path, run: Path) -> None:
    (run / "checkpoints" / "latest_checkpoint.txt").unlink()
    refuse(small_run(shards, run), r"missing beside saves of steps 2, 4: write iter_000000004.pt into it")


def test_a_second_run_in_the_folder(shards: Path, run: Path) -> None:
    with lock_folder(run, TRAINING_LOCK):
        refuse(small_run(shards, run), "is being trained in by process")


def test_rolled_back_run_saves_over_what_was_there(shards: Path, run: Path) -> None:
    checkpoints = run / "checkpoints"
    (checkpoints / "latest_checkpoint.txt").write_text("iter_000000002.pt\n")
    cfg = small_run(shards, run, "trainer.max_steps=4", "checkpoint.every_n_steps=2")
    before = losses(run)
    run_processes(1, train, cfg, log=run / "logs2")
    assert (latest_step(checkpoints), saved_steps(checkpoints)) == (4, [2, 4])
    assert losses(run) == before
    assert not list(checkpoints.glob(".*"))


def train_and_log(cfg: TrainConfig, log: Path) -> None:
    logging.getLogger("nemo_cosmos").addHandler(logging.FileHandler(log))
    train(cfg)


def test_the_configuration_wins(shards: Path, run: Path, tmp_path: Path) -> None:
    """Adam goes on with the settings given now: without decay and with other betas the next losses differ."""
    same = Path(shutil.copytree(run, tmp_path / "same"))
    settings = ["optimizer.weight_decay=0.5", "optimizer.beta1=0.5", "optimizer.beta2=0.7", "optimizer.eps=1e-3"]
    for folder, changed in ((same, []), (run, settings)):
        cfg = small_run(shards, folder, "trainer.max_steps=7", *changed)
        run_processes(1, train_and_log, cfg, folder / "changes.log", log=folder / "logs2")
    told = (run / "changes.log").read_text()
    for line in ("optimizer.weight_decay=0.5, it was 0.1 before", "optimizer.beta1=0.5, it was 0.9 before"):
        assert line in told
    assert "weight_decay" not in (same / "changes.log").read_text()
    assert losses(run)[:5] == losses(same)[:5]  # The first step after the save is taken with the same weights.
    assert losses(run)[5:] != losses(same)[5:]
    assert json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])["step"] == 7
