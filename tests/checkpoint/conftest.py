"""Runs that the tests of checkpoints read: made once, on layouts that the reader does not have."""

from __future__ import annotations

from pathlib import Path

import pytest

from nemo_cosmos.training.run import train
from tests.parallel.processes import run_processes
from tests.parallel.runs import small_run
from tests.training.shards import write_shards

LORA = ("lora.enabled=true", "lora.rank=3", "lora.alpha=6", "optimizer.lr=0.01", "trainer.max_steps=3")


@pytest.fixture(scope="session")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five frames of 5 × 3 patches: 75 tokens, which 2 does not divide."""
    return write_shards(tmp_path_factory.mktemp("data") / "shards", shape=(5, 10, 6))


@pytest.fixture(scope="session")
def base(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every weight trained for three steps, on two tensor ranks of two pipeline stages."""
    output = tmp_path_factory.mktemp("base") / "run"
    cfg = small_run(shards, output, "trainer.max_steps=3", "parallel.tensor=2", "parallel.pipeline=2")
    run_processes(4, train, cfg, log=output / "logs")
    return output


@pytest.fixture(scope="session")
def adapted(shards: Path, base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Adapters trained for three steps beside those weights, in one process."""
    output = tmp_path_factory.mktemp("adapted") / "run"
    cfg = small_run(shards, output, *LORA, f"model.init_from={base}")
    run_processes(1, train, cfg, log=output / "logs")
    return output
