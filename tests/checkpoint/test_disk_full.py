"""A disk that fills up while a run saves."""

from __future__ import annotations

import resource
from pathlib import Path

import lightning.pytorch as pl
import pytest

from nemo_cosmos.checkpoint.files import latest_step, saved_steps
from nemo_cosmos.config import TrainConfig
from nemo_cosmos.training.run import train
from nemo_cosmos.training.saving import CheckpointCallback
from tests.parallel.processes import run_processes
from tests.parallel.runs import exported, losses, small_run


class DiskFull(pl.Callback):
    """In the third save no file can grow beyond 400 kB from ``moment`` on; writing fails as on a full disk."""

    def __init__(self, moment: str) -> None:
        self.moment = moment

    def on_train_batch_start(self, trainer: pl.Trainer, *args: object, **kwargs: object) -> None:
        if trainer.global_step != 2:
            return
        saver = next(c for c in trainer.callbacks if isinstance(c, CheckpointCallback))  # type: ignore[attr-defined]
        method = getattr(saver, self.moment)

        def fill_up(*arguments: object) -> None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, resource.RLIM_INFINITY))
            method(*arguments)

        setattr(saver, self.moment, fill_up)


def train_until_full(cfg: TrainConfig, moment: str) -> None:
    train(cfg, callbacks=[DiskFull(moment)])


@pytest.mark.parametrize("moment", ["save", "export"])
def test_previous_save_stays(moment: str, shards: Path, tmp_path: Path) -> None:
    output = tmp_path / "run"
    cfg = small_run(shards, output, "trainer.max_steps=4", "checkpoint.every_n_steps=1", "checkpoint.keep=1")
    with pytest.raises(RuntimeError, match=r"InputError: .*checkpoints/.*could not be written"):
        run_processes(1, train_until_full, cfg, moment, log=output / "logs1")
    folder = output / "checkpoints"
    assert (latest_step(folder), saved_steps(folder)) == (2, [2])
    assert not list(folder.glob(".iter*.tmp/weights"))
    assert exported(output, 2) and exported(output, 2, "ema")
    run_processes(1, train, cfg, log=output / "logs2")
    assert len(losses(output)) == 4
    assert saved_steps(folder) == [4]
    assert not list(folder.glob(".*"))
