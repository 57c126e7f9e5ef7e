"""Optical flow for the temporal-consistency term.

The published recipe compares flows of RAFT-large (raft.py), whose weights are a download. The built-in estimator needs
none: a pyramidal Lucas–Kanade one (Lucas & Kanade 1981, Bouguet 2001), classical, differentiable, accurate for small
motions of textured regions and silent (zero flow) on flat ones. Any other network is given as TorchScript.
"""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from nemo_cosmos.errors import InputError
from nemo_cosmos.models.tokenizer.weights import load_jit
from nemo_cosmos.training.tokenizer.config import FlowConfig
from nemo_cosmos.training.tokenizer.raft import load_raft

RECOMPUTED_PAIRS = 32
"""Pairs of frames whose activations the backward pass holds at once when it recomputes them."""


class FlowEstimator(Protocol):
    """(N, 3, H, W) frames in [−1, 1], first and second, to the (N, 2, H, W) flow (x, y) in pixels between them."""

    def __call__(self, first: Tensor, second: Tensor) -> Tensor: ...


class LucasKanade(nn.Module):
    """Coarse-to-fine Lucas–Kanade on grey values.

    Args:
        levels: pyramid levels; displacements up to about 2^levels pixels are found.
        window: side of the averaging window, odd.
        iterations: refinements per level.
        ridge: added to the structure tensor's diagonal (grey values in [0, 1]), which damps flat regions to zero.
    """

    def __init__(self, levels: int = 4, window: int = 7, iterations: int = 2, ridge: float = 1e-4) -> None:
        super().__init__()
        self.levels, self.window, self.iterations, self.ridge = levels, window, iterations, ridge

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        pyramid = [(first.float().mean(1, keepdim=True) * 0.5 + 0.5, second.float().mean(1, keepdim=True) * 0.5 + 0.5)]
        while len(pyramid) < self.levels and min(pyramid[-1][0].shape[2:]) >= 4 * self.window:
            pyramid.append((F.avg_pool2d(pyramid[-1][0], 2), F.avg_pool2d(pyramid[-1][1], 2)))
        flow: Tensor | None = None
        for a, b in reversed(pyramid):
            if flow is None:
                flow = a.new_zeros(a.shape[0], 2, a.shape[2], a.shape[3])
            else:
                flow = 2.0 * F.interpolate(flow, size=a.shape[2:], mode="bilinear", align_corners=False)
            for _ in range(self.iterations):
                flow = flow + self._increment(a, _warp(b, flow))
        assert flow is not None
        return flow

    def _increment(self, a: Tensor, b: Tensor) -> Tensor:
        mean = F.pad(0.5 * (a + b), (1, 1, 1, 1), mode="replicate")
        dx = 0.5 * (mean[:, :, 1:-1, 2:] - mean[:, :, 1:-1, :-2])
        dy = 0.5 * (mean[:, :, 2:, 1:-1] - mean[:, :, :-2, 1:-1])
        dt = b - a
        products = torch.cat([dx * dx, dx * dy, dy * dy, dx * dt, dy * dt], dim=1)
        pad = self.window // 2
        xx, xy, yy, xt, yt = F.avg_pool2d(
            products, self.window, stride=1, padding=pad, count_include_pad=False
        ).unbind(1)
        xx, yy = xx + self.ridge, yy + self.ridge
        determinant = xx * yy - xy * xy
        u = (xy * yt - yy * xt) / determinant
        v = (xy * xt - xx * yt) / determinant
        # The linearisation holds for about a pixel: a larger step would jump to another structure.
        return torch.stack([u, v], dim=1).clamp(-1.0, 1.0)


def _warp(image: Tensor, flow: Tensor) -> Tensor:
    """image sampled at x + flow, borders repeated."""
    height, width = image.shape[2:]
    ys = torch.arange(height, device=image.device, dtype=image.dtype).view(1, -1, 1)
    xs = torch.arange(width, device=image.device, dtype=image.dtype).view(1, 1, -1)
    grid_x = (xs + flow[:, 0]) * (2.0 / max(width - 1, 1)) - 1.0
    grid_y = (ys + flow[:, 1]) * (2.0 / max(height - 1, 1)) - 1.0
    grid = torch.stack([grid_x, grid_y], dim=3)
    return F.grid_sample(image, grid, mode="bilinear", padding_mode="border", align_corners=True)


def make_estimator(config: FlowConfig) -> nn.Module:
    """The estimator that ``config`` names, frozen.

    Raises:
        InputError: a missing or foreign file, weights that nothing reads, or RAFT's cannot be fetched.
    """
    name = config.estimator
    if name == "raft":
        return load_raft(config.weights, config.iterations)
    if config.weights != "hub":
        raise InputError(f"loss.flow.weights={config.weights} needs loss.flow.estimator=raft, not {name}")
    if name == "lucas_kanade":
        return LucasKanade()
    if not Path(name).is_file():
        raise InputError(
            f"loss.flow.estimator={name}: expected lucas_kanade, raft or the path of a TorchScript network"
        )
    try:
        network = load_jit(name)
    except InputError as error:
        raise InputError(f"loss.flow.estimator={error}") from error
    for parameter in network.parameters():
        parameter.requires_grad_(False)
    return network


def clip_flow(estimator: FlowEstimator, video: Tensor, scale: int, recompute: bool = False) -> Tensor:
    """Flows (B·2(T−1), 2, h, w) of (B, 3, T, H, W): each frame to the next, and the same of the reversed clip.

    Frames are made ``scale`` times smaller first; the values are in pixels of the full size. ``recompute`` keeps no
    activations for the backward pass, which estimates some pairs after the others again.
    """
    if scale > 1:
        size = (video.shape[2], video.shape[3] // scale, video.shape[4] // scale)
        video = F.interpolate(video.float(), size=size, mode="trilinear", align_corners=False)
    reverse = video.flip(2)
    first = torch.cat([video[:, :, :-1], reverse[:, :, :-1]], dim=2).transpose(1, 2).flatten(0, 1)
    second = torch.cat([video[:, :, 1:], reverse[:, :, 1:]], dim=2).transpose(1, 2).flatten(0, 1)
    if not recompute:
        return estimator(first, second) * float(scale)
    parts = zip(first.split(RECOMPUTED_PAIRS), second.split(RECOMPUTED_PAIRS), strict=True)
    return torch.cat([checkpoint(estimator, *part, use_reentrant=False) for part in parts]) * float(scale)


def flow_distance(
    estimator: FlowEstimator, video: Tensor, reconstruction: Tensor, scale: int, recompute: bool = False
) -> Tensor:
    """Mean absolute difference of the two clips' flows, pixels."""
    with torch.no_grad():
        target = clip_flow(estimator, video, scale)
    return (clip_flow(estimator, reconstruction, scale, recompute) - target).abs().mean()
