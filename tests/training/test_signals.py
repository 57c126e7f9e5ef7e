"""A run that is asked to end saves first."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from nemo_cosmos.checkpoint.files import latest_step
from tests.parallel.runs import small_overrides
from tests.training.shards import write_shards

ENDLESS = ["trainer.max_steps=100000", "checkpoint.every_n_steps=100000"]


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_shards(tmp_path_factory.mktemp("data") / "shards", shape=(5, 10, 6))


def start(shards: Path, run: Path, *launcher: str, options: tuple[str, ...] = ()) -> subprocess.Popen[bytes]:
    """``train``, until its third step is done."""
    command = [sys.executable, *launcher, "-m", "nemo_cosmos", "train", *small_overrides(shards, run), *ENDLESS]
    run.mkdir()
    with (run / "log").open("wb") as log:
        process = subprocess.Popen(
            [*command, *options], stdout=log, stderr=log, env={**os.environ, "SLURM_JOB_ID": "1"}
        )
    deadline = time.monotonic() + 120
    while len(steps(run)) < 3:
        assert process.poll() is None and time.monotonic() < deadline, (run / "log").read_text()
        time.sleep(0.05)
    return process


def steps(run: Path) -> list[int]:
    path = run / "metrics.jsonl"
    lines = path.read_text().splitlines(keepends=True) if path.exists() else []
    return [json.loads(line)["step"] for line in lines if line.endswith("\n")]


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT", "SIGUSR1"])
def test_a_signal_ends_the_run_with_a_save(name: str, shards: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    process = start(shards, run)
    process.send_signal(signal.Signals[name])
    assert process.wait(60) == 128 + signal.Signals[name]
    assert latest_step(run / "checkpoints") == steps(run)[-1]
    log = (run / "log").read_text()
    assert f"{name}: ended at step {steps(run)[-1]}, which is saved" in log
    assert "Traceback" not in log


def test_one_process_of_torchrun_is_enough(shards: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    torchrun = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2")
    process = start(shards, run, *torchrun, options=("parallel.tensor=2",))
    process.send_signal(signal.SIGTERM)
    assert process.wait(90) != 0
    assert latest_step(run / "checkpoints") == steps(run)[-1]
