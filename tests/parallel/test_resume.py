"""A run continues from its checkpoint as if nothing had happened, on the same layout or another."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import lightning.pytorch as pl
import pytest

from nemo_cosmos.config import TrainConfig
from nemo_cosmos.data.record import read_data_record
from nemo_cosmos.training.run import train
from tests.parallel.processes import run_processes
from tests.parallel.runs import exported, losses, small_run, worst_difference
from tests.training.shards import write_shards

SHAPE = (5, 10, 6)


class KillAt(pl.Callback):
    """Ends the process at once, as a power cut would, in the middle of a run."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_end(self, trainer: pl.Trainer, *args: object, **kwargs: object) -> None:
        if trainer.global_step == self.step:
            os.kill(os.getpid(), signal.SIGKILL)


def train_until(cfg: TrainConfig, step: int) -> None:
    train(cfg, callbacks=[KillAt(step)])


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_shards(tmp_path_factory.mktemp("data") / "shards", shape=SHAPE)


@pytest.fixture(scope="module")
def uninterrupted(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("reference") / "run"
    run_processes(1, train, small_run(shards, output, "trainer.max_steps=10"), log=output / "logs")
    return output


def relative(found: list[float], expected: list[float]) -> float:
    return max(abs(a - b) / abs(b) for a, b in zip(found, expected, strict=True))


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (["parallel.tensor=2", "parallel.pipeline=2"], ["parallel.context=2"]),
        (["parallel.context=2"], ["parallel.tensor=2", "parallel.sequence=true", "parallel.pipeline=2"]),
    ],
    ids=["tp2·pp2 to cp2·dp2", "cp2·dp2 to tp2+sp·pp2"],
)
def test_resume_on_another_layout(
    first: list[str], second: list[str], shards: Path, uninterrupted: Path, tmp_path: Path
) -> None:
    output = tmp_path / "run"
    run_processes(4, train, small_run(shards, output, "trainer.max_steps=5", *first), log=output / "logs1")
    run_processes(4, train, small_run(shards, output, "trainer.max_steps=10", *second), log=output / "logs2")
    assert [json.loads(x)["step"] for x in (output / "metrics.jsonl").read_text().splitlines()] == list(range(1, 11))
    assert relative(losses(output), losses(uninterrupted)) < 1e-6
    for weights in ("reg", "ema"):
        assert worst_difference(exported(output, 10, weights), exported(uninterrupted, 10, weights)) < 1e-5


def test_killed_run_continues(shards: Path, uninterrupted: Path, tmp_path: Path) -> None:
    output = tmp_path / "run"
    cfg = small_run(shards, output, "trainer.max_steps=10", "checkpoint.every_n_steps=3")
    with pytest.raises(RuntimeError, match="failed"):
        run_processes(1, train_until, cfg, 7, log=output / "logs1")
    assert len(losses(output)) == 7
    record = read_data_record(output)
    assert record is not None and (record.samples, record.fps) == (8, [24.0, 30.0])
    run_processes(1, train, cfg, log=output / "logs2")
    assert losses(output) == losses(uninterrupted)
    assert worst_difference(exported(output, 10, "ema"), exported(uninterrupted, 10, "ema")) == 0
    assert sorted(p.name for p in (output / "checkpoints").iterdir() if p.is_dir()) == [
        "iter_000000006", "iter_000000009", "iter_000000010",
    ]  # fmt: skip
    assert not list((output / "checkpoints").glob(".*"))


def test_tensor_parallel_curve(shards: Path, tmp_path: Path) -> None:
    for name, world, options in (("tp1", 1, []), ("tp2", 2, ["parallel.tensor=2"])):
        cfg = small_run(shards, tmp_path / name, "trainer.max_steps=20", *options)
        run_processes(world, train, cfg, log=tmp_path / name / "logs")
    assert relative(losses(tmp_path / "tp2"), losses(tmp_path / "tp1")) < 1e-5


def test_distributed_optimizer(shards: Path, tmp_path: Path) -> None:
    for name, world, option in (("plain", 1, "false"), ("split", 2, "true")):
        cfg = small_run(shards, tmp_path / name, f"parallel.distributed_optimizer={option}")
        run_processes(world, train, cfg, log=tmp_path / name / "logs")
    assert relative(losses(tmp_path / "split"), losses(tmp_path / "plain")) < 1e-6
    for weights in ("reg", "ema"):
        found, expected = (exported(tmp_path / name, weights=weights) for name in ("split", "plain"))
        assert worst_difference(found, expected) < 1e-5
