"""Outputs of networks of ours and of diffusers on the same inputs."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from nemo_cosmos.models.dit import CosmosDiT


def inputs(text_width: int = 16) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    mask = torch.zeros(2, 1, 3, 8, 12)
    mask[:, :, :1] = 1
    return {
        "x": torch.randn(2, 16, 3, 8, 12, generator=generator),
        "time": torch.tensor([-0.3, 0.5]),
        "text": torch.randn(2, 10, text_width, generator=generator),
        "mask": mask,
    }


@torch.no_grad()
def ours(net: CosmosDiT, **changed: Tensor) -> Tensor:
    i = inputs() | changed
    fps = torch.full((2,), 30.0)
    return net(i["x"], i["time"], i["text"], fps=fps, condition_mask=i["mask"])


@torch.no_grad()
def theirs(model: Any, fps: int | None = 30, **changed: Tensor) -> Tensor:
    """Needs the fixture ``nearest_resize``."""
    i = inputs() | changed
    return model(
        i["x"], i["time"], i["text"], fps=fps, condition_mask=i["mask"], padding_mask=torch.zeros(1, 1, 64, 96),
        return_dict=False,
    )[0]  # fmt: skip


def difference(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).norm() / expected.norm())
