"""Rectified flow through ``train``: the networks of Predict2, by their settings alone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor

from nemo_cosmos.data.sample import collate
from nemo_cosmos.data.shards import ShardDataset
from nemo_cosmos.diffusion.noise import sample_generator
from nemo_cosmos.models.dit import DiTConfig, build_dit
from nemo_cosmos.training.run import train
from tests.parallel.processes import run_processes
from tests.parallel.runs import SMALL, exported, losses, small_run
from tests.training.shards import write_shards

IMAGE, VIDEO = "tiny-predict2-text2image", "tiny-predict2-video2world"
SETTINGS = ["trainer.precision=fp32", "objective.text_dropout=0", "data.shuffle=false"]


@pytest.fixture(scope="module", params=[IMAGE, VIDEO])
def preset(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def shards(preset: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_shards(tmp_path_factory.mktemp(preset) / "shards", shape=(1 if preset == IMAGE else 3, 8, 8))


def test_the_first_loss_is_ten_times_the_squared_velocity_error(preset: str, shards: Path, tmp_path: Path) -> None:
    """z = (1 - t) x0 + t e, F is drawn towards e - x0, given frames are clean and have a time of their own."""
    cfg = small_run(shards, tmp_path / "run", *SETTINGS, "trainer.max_steps=1", "data.global_batch=1", preset=preset)
    run_processes(1, train, cfg, log=tmp_path / "logs")
    sizes = {key: int(value) for key, value in (item.split(": ") for item in SMALL.strip("{}").split(", "))}
    net = build_dit(DiTConfig.preset(preset, **sizes), seed=cfg.seed).eval()
    batch = collate([(0, ShardDataset(shards)[0])], 8)
    sigma = 2.0 * float(torch.exp(_normal("sigma")))
    noise = torch.randn(batch.latent.shape[1:], generator=sample_generator(cfg.seed, 0, stream="epsilon"))[None]
    time = sigma / (1 + sigma)
    state, times = (1 - time) * batch.latent + time * noise, torch.full((1, batch.latent.shape[2]), time)
    told = batch.network_inputs()
    if preset == VIDEO:
        uniform = float(torch.rand((), generator=sample_generator(cfg.seed, 0, stream="condition_frames"),
                                   dtype=torch.float64))  # fmt: skip
        given = int(3 * uniform)  # uniform in 0..2
        state[:, :, :given], times[:, :given] = batch.latent[:, :, :given], 1e-4 / (1 + 1e-4)
        told.condition_mask = torch.zeros_like(batch.latent[:, :1])
        told.condition_mask[:, :, :given] = 1
    with torch.no_grad():
        error = told.feed(net, state, times) - (noise - batch.latent)
    if preset == VIDEO:
        error[:, :, :given] = 0
    assert losses(tmp_path / "run")[0] == pytest.approx(10 * float(error.square().mean()), rel=1e-5)


def _normal(stream: str) -> Tensor:
    uniform = torch.rand((), generator=sample_generator(0, 0, stream=stream), dtype=torch.float64)
    return torch.special.ndtri(uniform)


def test_a_stopped_run_goes_on_as_if_it_had_not_stopped(preset: str, shards: Path, tmp_path: Path) -> None:
    for precision in ("fp32", "bf16"):
        settings = [f"trainer.precision={precision}", "checkpoint.every_n_steps=2"]
        whole, halves = tmp_path / f"{precision}-whole", tmp_path / f"{precision}-halves"
        for folder, steps in ((whole, 4), (halves, 2), (halves, 4)):
            cfg = small_run(shards, folder, *settings, f"trainer.max_steps={steps}", preset=preset)
            run_processes(1, train, cfg, log=tmp_path / "logs")
        assert losses(whole) == losses(halves)
        for weights in ("reg", "ema"):
            one, two = exported(whole, 4, weights), exported(halves, 4, weights)
            assert all(torch.equal(one[name], two[name]) for name in one)
            assert not any(name.startswith("logvar") for name in one)
        record = json.loads((whole / "metrics.jsonl").read_text().splitlines()[-1])
        assert {"loss", "edm_mse", "grad_norm"} <= set(record)
