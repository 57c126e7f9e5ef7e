"""A process that trains twice holds no more after the second run than after the first."""

from __future__ import annotations

import gc
from pathlib import Path

import torch

from nemo_cosmos.config import TrainConfig
from nemo_cosmos.training.run import train
from tests.parallel.processes import run_processes
from tests.parallel.runs import losses, small_run
from tests.training.shards import write_shards


def live_tensors() -> tuple[int, int]:
    """How many there are, and the bytes of their memory."""
    gc.collect()
    found = [thing for thing in gc.get_objects() if isinstance(thing, torch.Tensor)]
    sizes = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in found}
    return len(found), sum(sizes.values())


def train_each(configs: list[TrainConfig]) -> None:
    held = []
    for cfg in configs:
        train(cfg)
        held.append(live_tensors())
    assert held[1] == held[0], held


def test_what_a_run_held_is_free_afterwards(tmp_path: Path) -> None:
    shards = write_shards(tmp_path / "shards", shape=(5, 10, 6))
    short = ("trainer.max_steps=2", "checkpoint.export=false")
    configs = [
        small_run(shards, tmp_path / "first", *short),
        small_run(shards, tmp_path / "again", *short),
        small_run(shards, tmp_path / "bf16", *short, "trainer.precision=bf16", "data.global_batch=2"),
    ]
    run_processes(1, train_each, configs, log=tmp_path / "logs")
    assert losses(tmp_path / "again") == losses(tmp_path / "first")
    assert len(losses(tmp_path / "bf16")) == 2
