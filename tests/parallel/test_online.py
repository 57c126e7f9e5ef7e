"""Training on raw videos gives the numbers of training on their shards."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from nemo_cosmos.training.run import train
from tests.parallel.processes import run_processes
from tests.parallel.runs import losses, small_run
from tests.training.clips import RawData, write_raw_data

COMMON = ["trainer.max_steps=3", "data.global_batch=2", "data.text_length=24"]


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> RawData:
    return write_raw_data(tmp_path_factory.mktemp("raw"))


@pytest.fixture(scope="module")
def cached(raw: RawData, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cached")
    cfg = small_run(raw.shards(folder / "shards"), folder / "run", "parallel.tensor=2", *COMMON)
    run_processes(2, train, cfg, log=folder / "logs")
    return folder / "run"


@pytest.mark.parametrize(
    "layout",
    [
        ["parallel.tensor=2", "data.num_workers=1"],
        ["parallel.pipeline=2", "parallel.virtual_pipeline=2"],
        ["parallel.pipeline=2", "data.packing=true", "data.micro_batch=2"],
    ],
    ids=["tp2", "pp2+vp2", "pp2 packed"],
)
def test_online_equals_cached(layout: list[str], raw: RawData, cached: Path, tmp_path: Path) -> None:
    cfg = small_run(raw.clips, tmp_path / "run", *COMMON, *raw.online(), *layout)
    run_processes(2, train, cfg, log=tmp_path / "logs")
    assert losses(tmp_path / "run") == pytest.approx(losses(cached), rel=1e-5)
    records = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert all(0 < r["encode_seconds"] < r["seconds"] and r["data_wait_seconds"] >= 0 for r in records)
    assert "encode_seconds" not in (cached / "metrics.jsonl").read_text()
    assert f"encode {records[-1]['encode_seconds']:.3f} s (" in (tmp_path / "logs" / "rank0.log").read_text()
