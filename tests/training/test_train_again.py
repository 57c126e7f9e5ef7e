"""A process that trains again does not hold the networks of the runs before."""

from __future__ import annotations

import gc
from itertools import pairwise
from pathlib import Path

import torch

from nemo_cosmos.config import TrainConfig
from nemo_cosmos.training.run import train
from tests.parallel.processes import run_processes
from tests.parallel.runs import losses, small_run
from tests.training.shards import write_shards

RNG_STATE = torch.get_rng_state().nbytes


def live_tensors() -> tuple[int, int]:
    """How many there are, and the bytes of their memory."""
    for _ in range(3):  # What objects freed in one pass have held is found in the next.
        gc.collect()
    # Other tests of the process leave tensors of the compiler, which have no memory.
    found = [thing for thing in gc.get_objects() if type(thing) in (torch.Tensor, torch.nn.Parameter)]
    sizes = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in found}
    return len(found), sum(sizes.values())


def train_each(configs: list[TrainConfig]) -> None:
    held = []
    for cfg in configs:
        train(cfg)
        held.append(live_tensors())
    # Of networks, gradients and moments (2 MB here) nothing; a few states of the random generators, 5 kB each, stay.
    assert all(after[1] - before[1] <= 4 * RNG_STATE for before, after in pairwise(held)), held
    assert held[0][1] < 20 * RNG_STATE, held


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
