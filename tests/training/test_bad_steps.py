"""Steps that are not finite change nothing, are named, and end the run when they repeat."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch

from nemo_cosmos.checkpoint import load_network
from nemo_cosmos.checkpoint.files import latest_step, read_tensors, save_tensors
from nemo_cosmos.config import TrainConfig
from nemo_cosmos.errors import InputError
from nemo_cosmos.training.model import DenoisingModel
from nemo_cosmos.training.run import train
from tests.parallel.processes import run_processes
from tests.parallel.runs import exported, small_run
from tests.training.shards import write_shards


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_shards(tmp_path_factory.mktemp("data") / "shards", shape=(5, 10, 6))


class Poison(pl.Callback):
    """From one step up to another the latent of the sample at the first position is NaN; on its rank alone."""

    def __init__(self, first: int, last: int) -> None:
        self.first, self.last = first, last

    def on_train_batch_start(self, trainer: pl.Trainer, *args: Any, **kwargs: Any) -> None:
        poisoned = self.first <= trainer.global_step + 1 <= self.last
        forward = DenoisingModel.forward

        def spoilt(self: DenoisingModel, batch: Any) -> Any:
            if poisoned and int(batch.position[0]) % 4 == 0:
                batch.latent[0, 0, 0, 0, 0] = torch.nan
            return forward(self, batch)

        if not hasattr(self, "clean"):
            self.clean = forward
        forward = self.clean
        DenoisingModel.forward = spoilt  # type: ignore[method-assign]


def train_poisoned(cfg: TrainConfig, first: int, last: int) -> None:
    import logging

    logging.basicConfig(level=logging.WARNING)
    train(cfg, callbacks=[Poison(first, last)])


def records(run: Path) -> list[dict[str, Any]]:
    def no_constants(word: str) -> None:
        raise AssertionError(f"{word} is not JSON")

    lines = (run / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line, parse_constant=no_constants) for line in lines]


@pytest.mark.parametrize("layout", [(1, []), (2, []), (2, ["parallel.pipeline=2"])], ids=["one", "dp2", "pp2"])
def test_one_bad_step_is_skipped(layout: tuple[int, list[str]], shards: Path, tmp_path: Path) -> None:
    world_size, options = layout
    cfg = small_run(shards, tmp_path, "trainer.precision=bf16", *options)
    run_processes(world_size, train_poisoned, cfg, 3, 3, log=tmp_path / "logs")
    found = records(tmp_path)
    assert [record["skipped_steps"] for record in found] == [0, 0, 1, 1, 1]
    assert found[2]["loss"] is None and found[2]["grad_norm"] is None
    assert all(record["loss"] is not None and record["grad_norm"] > 0 for record in found[:2] + found[3:])
    assert all(torch.isfinite(t).all() for kind in ("reg", "ema") for t in exported(tmp_path, 5, kind).values())
    log = "".join(path.read_text() for path in (tmp_path / "logs").glob("rank*.log"))
    assert "step 3 skipped: its loss or gradients are not finite; samples clip-00" in log
    assert "(sigma " in log


def test_weights_of_a_skipped_step_are_those_before(shards: Path, tmp_path: Path) -> None:
    cfg = small_run(shards, tmp_path, "trainer.max_steps=3", "checkpoint.every_n_steps=2")
    run_processes(1, train_poisoned, cfg, 3, 3, log=tmp_path / "logs")
    for kind in ("reg", "ema"):
        before, after = exported(tmp_path, 2, kind), exported(tmp_path, 3, kind)
        assert all(torch.equal(after[name], tensor) for name, tensor in before.items())


def test_a_run_of_bad_steps_ends(shards: Path, tmp_path: Path) -> None:
    cfg = small_run(shards, tmp_path, "trainer.max_steps=9", "checkpoint.every_n_steps=1", "trainer.max_bad_steps=2")
    with pytest.raises(RuntimeError, match="SystemExit: 3"):
        run_processes(1, train_poisoned, cfg, 4, 9, log=tmp_path / "logs")
    assert latest_step(tmp_path / "checkpoints") == 4
    assert [record["step"] for record in records(tmp_path)] == [1, 2, 3, 4, 5]
    assert all(torch.isfinite(t).all() for t in exported(tmp_path, 4).values())


def test_weights_that_are_not_finite_are_not_generated_from(shards: Path, tmp_path: Path) -> None:
    run_processes(1, train, small_run(shards, tmp_path, "trainer.max_steps=1"), log=tmp_path / "logs")
    file = tmp_path / "checkpoints" / "iter_000000001_reg_model.pt"
    state = {name: tensor.clone() for name, tensor in read_tensors(file).items()}
    state["net.final_layer.linear.weight"][0, 0] = torch.inf
    save_tensors(file, state)
    with pytest.raises(
        InputError, match=r"1 tensors hold values that are not finite, final_layer.linear.weight first"
    ):
        load_network(file)
