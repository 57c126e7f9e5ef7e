"""Images of several sizes and shapes in one dataset: by buckets, one after another."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from nemo_cosmos.data.manifest import merge_manifest
from nemo_cosmos.data.shards import ShardDataset
from nemo_cosmos.errors import InputError
from nemo_cosmos.models.dit import DiTConfig
from nemo_cosmos.training.run import train
from nemo_cosmos.training.samples import open_samples
from tests.parallel.processes import run_processes
from tests.parallel.runs import exported, losses, small_run, train_and_capture, worst_difference
from tests.training.shards import write_shards

IMAGE = "tiny-predict2-text2image"
LANDSCAPE, PORTRAIT, SQUARE = (1, 6, 10), (1, 10, 6), (1, 8, 8)
MIXED = [
    LANDSCAPE,
    PORTRAIT,
    SQUARE,
    LANDSCAPE,
    PORTRAIT,
    LANDSCAPE,
    LANDSCAPE,
    PORTRAIT,
    SQUARE,
    LANDSCAPE,
    LANDSCAPE,
]
"""Six, three and two samples, unsorted: with batches of four, an epoch of four steps."""


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_shards(tmp_path_factory.mktemp("mixed") / "shards", shapes=MIXED)


def test_shards_know_the_shape_of_every_sample(shards: Path) -> None:
    dataset = ShardDataset(shards)
    assert [(bucket.shape, len(bucket.samples)) for bucket in dataset.buckets] == [
        ((16, *LANDSCAPE), 6), ((16, *SQUARE), 2), ((16, *PORTRAIT), 3),
    ]  # fmt: skip
    for bucket in dataset.buckets:
        assert {tuple(dataset[int(number)].latent.shape) for number in bucket.samples} == {bucket.shape}


def run(shards: Path, output: Path, *overrides: str, processes: int = 1, capture: bool = False) -> Path:
    cfg = small_run(shards, output, *overrides, preset=IMAGE)
    run_processes(processes, train_and_capture if capture else train, cfg, log=output.parent / "logs")
    return output


def test_steps_are_of_one_shape_under_every_layout(shards: Path, tmp_path: Path) -> None:
    split = "parallel.distributed_optimizer=false"
    one = run(shards, tmp_path / "one", split, "data.micro_batch=2", capture=True)
    for name, processes, overrides in (
        ("pp2+vp2", 2, ["parallel.pipeline=2", "parallel.virtual_pipeline=2"]),
        ("dp2·cp2", 4, ["parallel.context=2"]),
    ):
        many = run(shards, tmp_path / name, split, *overrides, processes=processes, capture=True)
        assert losses(many) == pytest.approx(losses(one), rel=1e-6)
        assert worst_difference(torch.load(many / "gradients.pt"), torch.load(one / "gradients.pt")) < 1e-5
        assert worst_difference(exported(many), exported(one)) < 1e-5


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_stopped_run_goes_on_in_the_same_buckets(precision: str, shards: Path, tmp_path: Path) -> None:
    settings = [f"trainer.precision={precision}", "checkpoint.every_n_steps=3"]
    whole = run(shards, tmp_path / "whole", *settings, "trainer.max_steps=6")
    for steps in (3, 6):
        halves = run(shards, tmp_path / "halves", *settings, f"trainer.max_steps={steps}")
    assert losses(whole) == losses(halves)
    one, two = exported(whole, 6), exported(halves, 6)
    assert all(torch.equal(one[name], two[name]) for name in one)
    records = [json.loads(line) for line in (whole / "metrics.jsonl").read_text().splitlines()]
    tokens = [round(record["tokens_per_second"] * record["seconds"]) for record in records]
    # 15 tokens in portrait and landscape, 16 in squares, of which an epoch has one batch.
    assert sorted(tokens[:4]) == [60, 60, 60, 64]


def test_a_sample_that_the_network_does_not_take_is_named(tmp_path: Path) -> None:
    odd = write_shards(tmp_path / "odd", shapes=[LANDSCAPE, PORTRAIT, (1, 7, 8), SQUARE])
    large = write_shards(tmp_path / "large", shapes=[SQUARE, (1, 40, 8), (1, 40, 8)])
    for shards, words in ((odd, r"'clip-002' of 4 .*\(16, 1, 7, 8\)"), (large, "'clip-001' and 1 more of 3 .*40")):
        cfg = small_run(shards, tmp_path / "run", preset=IMAGE)
        with pytest.raises(InputError, match=words):
            open_samples(cfg, DiTConfig.preset(IMAGE, **cfg.model.overrides))


def test_an_index_without_the_shapes_is_refused(tmp_path: Path) -> None:
    shards = write_shards(tmp_path / "shards", shapes=MIXED)
    index = next(file for file in sorted(shards.glob("*.index.json")) if "shapes" in json.loads(file.read_text()))
    values = json.loads(index.read_text())
    for shapes, words in ((values["shapes"][:-1], "shapes"), ([9] * 3, "shapes"), ([], "does not say which sample")):
        index.write_text(json.dumps({**values, "shapes": shapes}))
        with pytest.raises(InputError, match=words):
            merge_manifest(shards)
            ShardDataset(shards)
