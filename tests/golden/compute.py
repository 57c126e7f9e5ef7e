"""The numbers that restructuring must not change: losses of every tiny network, and what is sampled from it."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nemo_cosmos.config import TrainConfig, load_config
from nemo_cosmos.data.network_inputs import NetworkInputs
from nemo_cosmos.diffusion import ConditionFrames, DenoisingLoss, SigmaDistribution
from nemo_cosmos.diffusion.objectives import EDMObjective, Objective, RectifiedFlowObjective
from nemo_cosmos.inference.config import GenerationConfig
from nemo_cosmos.inference.sampling import SamplingInputs, sample_latent
from nemo_cosmos.models.dit import DiTConfig, build_dit
from nemo_cosmos.training.run import train
from tests.training.shards import write_shards

STEPS = 20
SIZES: dict[str, Any] = {"hidden_size": 64, "num_layers": 2, "text_width": 16, "adaln_lora_dim": 8}
TRAINED = ("tiny-text2world", "tiny-video2world")
"""By ``train``."""
STEPPED = (
    "tiny-video2world-camera",
    "tiny-video2world-multiview",
    "tiny-predict2-text2image",
    "tiny-predict2-video2world",
    "tiny-predict2-multiview",
)
"""By a loop around the network, because ``train`` does not take them yet."""
SAMPLED = (*TRAINED, "tiny-predict2-text2image", "tiny-predict2-video2world")


def losses_of_training(preset: str, folder: Path) -> dict[str, list[float]]:
    """Twenty steps of ``train`` in fp32 on one process."""
    shards, run = write_shards(folder / "shards", shape=(5, 8, 8)), folder / "run"
    sizes = ", ".join(f"{key}: {value}" for key, value in SIZES.items())
    words = [
        "experiment=demo_video2world", f"model.preset={preset}", "model.init_from=null",
        f"model.overrides={{{sizes}, max_frames: 16, max_height: 32, max_width: 32}}", f"data.path={shards}",
        f"output_dir={run}", "data.micro_batch=1", "data.global_batch=2", "data.num_workers=0", "data.text_length=8",
        "data.tokenizer=null", f"trainer.max_steps={STEPS}", "trainer.precision=fp32", "optimizer.lr=1e-3",
        "optimizer.warmup_steps=0", "optimizer.cycle_steps=1200", "checkpoint.every_n_steps=1000",
        "checkpoint.export=false",
    ]  # fmt: skip
    train(load_config(TrainConfig, words))
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return {key: [record[key] for record in records] for key in ("loss", "edm_mse", "grad_norm")}


def losses_of_loop(preset: str) -> dict[str, list[float]]:
    """Twenty steps of AdamW around the network."""
    config = network_config(preset)
    net = build_dit(config, seed=0)
    views = 1 if not config.multiview else 2 if config.family == "predict2" else config.num_views
    shape = (16, 1 if "image" in preset else 3 * views, 8, 8)
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-3)
    out: dict[str, list[float]] = {"loss": [], "edm_mse": []}
    for step in range(STEPS):
        generator = torch.Generator().manual_seed(step)
        latent = torch.randn((2, *shape), generator=generator)
        options: dict[str, Any] = {"fps": torch.full((2,), 16.0)}
        if config.plucker_channels:
            options["plucker"] = torch.randn((2, 6, *shape[1:]), generator=generator)
        if config.multiview and config.family == "predict2":
            options["view_ids"] = torch.arange(views).expand(2, -1)
        if config.frame_repeat:
            options["frame_repeat"] = torch.rand((2, views), generator=generator)
        text = torch.randn((2, 8 * views, SIZES["text_width"]), generator=generator)
        result = denoising_step(net, config, latent, text, [2 * step, 2 * step + 1], views, options)
        optimizer.zero_grad()
        result.loss.backward()
        optimizer.step()
        out["loss"].append(float(result.loss))
        out["edm_mse"].append(float(result.edm_mse))
    return out


def denoising_step(
    net: torch.nn.Module,
    config: DiTConfig,
    latent: Tensor,
    text: Tensor,
    positions: list[int],
    views: int,
    options: dict[str, Any],
) -> DenoisingLoss:
    """The loss of a batch under the objective of the network's family."""
    rectified = config.objective == "rectified_flow"
    given = ConditionFrames(minimum=int(rectified), maximum=2) if config.condition_mask else None
    sigma = SigmaDistribution(multiplier=2.0, high_sigma_probability=0.05 * rectified)
    kind = RectifiedFlowObjective if rectified else EDMObjective
    objective: Objective = kind(sigma=sigma, condition_frames=given)
    draw = objective.draw(positions, latent.shape[1:], seed=3, device=torch.device("cpu"), num_views=views)
    clean = objective.clean(latent)
    inputs = objective.training_input(clean, draw)
    if config.condition_mask:
        options = {**options, "condition_mask": inputs.condition_mask}
    output = net(inputs.sample, inputs.timesteps, text * (~draw.drop_text)[:, None, None], **options)
    return objective.loss(inputs, output, clean, draw)


def network_config(preset: str) -> DiTConfig:
    return DiTConfig.preset(preset, **SIZES)


def samples(preset: str) -> dict[str, dict[str, list[float]]]:
    """A few numbers of what each sampler makes, with guidance and, where the network takes them, given frames."""
    config = network_config(preset)
    net = build_dit(config, seed=0).eval()
    # A fresh network's last layer is zero.
    torch.nn.init.normal_(net.final_layer.linear.weight, std=0.1, generator=torch.Generator().manual_seed(1))
    generator = torch.Generator().manual_seed(0)
    text = torch.randn((2, 1, 8, SIZES["text_width"]), generator=generator)
    given = torch.randn((1, 16, 1, 8, 8), generator=generator) if config.condition_mask else None
    out = {}
    for sampler in ("edm-euler", "res-2ab"):
        told = NetworkInputs(text=text[0], fps=torch.tensor([16.0]))
        inputs = SamplingInputs((16, 3, 8, 8), told, text[1], seed=1, condition=given)
        settings = GenerationConfig(sampler=sampler, num_steps=5, guidance=2.0)  # type: ignore[arg-type]
        latent = sample_latent(net, config, inputs, settings)
        out[sampler] = {"numbers": [float(latent.mean()), float(latent.std()), *latent[0, 0, 1, 0, :4].tolist()]}
    return out


def everything() -> dict[str, Any]:
    """Losses and samples by preset."""
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        for preset in TRAINED:
            found[preset] = losses_of_training(preset, Path(folder) / preset)
    found |= {preset: losses_of_loop(preset) for preset in STEPPED}
    for preset in SAMPLED:
        found[preset] |= samples(preset)
    return found
