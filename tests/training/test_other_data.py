"""A run that is resumed on other samples than it was trained on says so, and needs leave."""

from __future__ import annotations

from pathlib import Path

import pytest

from nemo_cosmos.checkpoint.files import iteration_name, write_latest
from nemo_cosmos.config import TrainConfig
from nemo_cosmos.data.record import DataRecord, read_data_record, refuse_other_data
from nemo_cosmos.errors import InputError
from nemo_cosmos.models.dit import DiTConfig
from nemo_cosmos.training.run import train
from nemo_cosmos.training.samples import open_samples
from tests.parallel.runs import small_run
from tests.training.shards import write_shards

DIT = DiTConfig.preset("tiny-video2world", text_width=16)


def check(cfg: TrainConfig, folder: Path) -> None:
    refuse_other_data(folder, open_samples(cfg, DIT).record, allow_change=cfg.data.allow_change)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """The folder of a run that has been trained on ``a`` and saved a checkpoint."""
    shards = write_shards(tmp_path / "a", count=4)
    (tmp_path / "run" / "checkpoints" / iteration_name(3)).mkdir(parents=True)
    write_latest(tmp_path / "run" / "checkpoints", 3)
    open_samples(small_run(shards, tmp_path / "run"), DIT).record.save(tmp_path / "run")
    return tmp_path / "run"


def test_other_samples_are_refused_before_anything_is_built(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nemo_cosmos.training.resume.look_at", lambda *_: None)  # The save is an empty folder.
    before, other = read_data_record(run), write_shards(run.parent / "b", count=4, seed=1)
    with pytest.raises(InputError, match=rf"trained on {run.parent / 'a'} .*now {other} .*data\.allow_change=true"):
        train(small_run(other, run))
    assert read_data_record(run) == before and before is not None and before.fps == [24.0, 30.0]


def test_one_sample_more_is_other_data(run: Path) -> None:
    cfg = small_run(write_shards(run.parent / "b", count=5), run)
    with pytest.raises(InputError, match=r"\(4 samples, .*\(5 samples, "):
        check(cfg, run)


def test_leave_is_given_and_said(run: Path, caplog: pytest.LogCaptureFixture) -> None:
    cfg = small_run(write_shards(run.parent / "b", count=5), run, "data.allow_change=true")
    check(cfg, run)
    assert "going on with these samples" in caplog.text


def test_the_same_samples_elsewhere_are_the_same_data(run: Path) -> None:
    cfg = small_run((run.parent / "a").rename(run.parent / "moved"), run)
    check(cfg, run)


def test_a_run_of_before_is_not_held_to_anything(run: Path) -> None:
    (run / "data.json").unlink()
    cfg = small_run(write_shards(run.parent / "b", count=5), run)
    check(cfg, run)
    DataRecord("x", "y", 1).save(run / "new")
    assert read_data_record(run / "new") == DataRecord("x", "y", 1, [])
