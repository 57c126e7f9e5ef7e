"""Whether a network with camera rays begins as the network that it was made of."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from nemo_cosmos.checkpoint.sources import open_weights
from nemo_cosmos.models.dit import CosmosDiT, DiTConfig, build_dit
from nemo_cosmos.models.dit.growth import grown_weights

ALLOWED = 1e-6
"""Difference of outputs in fp32, over the largest number of the base's output."""
LATENT = (3, 16, 24)


def step0_difference(model: Path | None, preset: str, device: str) -> tuple[float, str]:
    """The largest difference to the base model's output, over its largest number, for rays of several sizes; and what
    was added to the weights.

    Args:
        model: weights without camera rays; None: random ones.
        preset: the network with camera rays.
        device: of both networks.
    """
    config = DiTConfig.preset(preset)
    without = replace(config, plucker_channels=0)
    if model is None:
        state = build_dit(without, seed=1).to_original()
        generator = torch.Generator().manual_seed(2)
        # The layers that begin at zero would hide everything before them.
        state = {n: t if t.any() or not t.is_floating_point() else 0.02 * torch.randn(t.shape, generator=generator)
                 for n, t in state.items()}  # fmt: skip
    else:
        state = dict(open_weights(model, weights="reg").state)
    base, camera = build_dit(without, seed=None), build_dit(config, seed=None)
    base.load_original(state)
    report = camera.load_original(grown_weights(config, state))
    expected = _output(base.to(device), config)
    largest = max(
        float((_output(camera.to(device), config, scale) - expected).abs().max()) for scale in (0.0, 1.0, 100.0)
    )
    return largest / float(expected.abs().max()), str(report.grown)


@torch.no_grad()
def _output(net: CosmosDiT, config: DiTConfig, scale: float | None = None) -> Tensor:
    generator, device = torch.Generator().manual_seed(0), next(net.parameters()).device
    x = torch.randn(1, config.in_channels, *LATENT, generator=generator).to(device)
    text = torch.randn(1, 16, config.text_width, generator=generator).to(device)
    mask = torch.zeros(1, 1, *LATENT, device=device)
    mask[:, :, 0] = 1
    told = {"fps": torch.tensor([7.0], device=device), "condition_mask": mask}
    if scale is not None:
        told["plucker"] = scale * torch.randn(1, 6, *LATENT, generator=generator).to(device)
    return net(x, torch.tensor([-0.3], device=device), text, **told).float().cpu()
