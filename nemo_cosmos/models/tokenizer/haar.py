"""Three-dimensional Haar wavelet patcher of the Cosmos tokenizers.

One level splits every 2×2×2 block of voxels into eight subbands; ``log2(patch_size)`` levels follow each other, each
seeing all channels of the one before. With h = 1/√2, low = h·a + h·b and high = h·a − h·b along time, then height,
then width, and a division by 2√2, so that the lowest subband is the plain mean of the block.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


class HaarPatcher3D(nn.Module):
    """(B, C, T, H, W) video to (B, C·p³, 1 + (T−1)/p, H/p, W/p) subbands; frame 0 alone fills the first patch.

    Channel order is subband-major: ``subband * C + channel`` with subbands (t, h, w) lll, llh, lhl, lhh, hll, hlh,
    hhl, hhh. T must be 1 + k·p, H and W multiples of p.
    """

    def __init__(self, patch_size: int) -> None:
        super().__init__()
        self.patch_size = patch_size
        self.num_levels = int(math.log2(patch_size))
        self.level_scale = 2.0 * math.sqrt(2.0)
        # The three buffers are part of the released state dicts; only `wavelets` is computed with.
        self.register_buffer("wavelets", torch.tensor([1.0, 1.0]) / math.sqrt(2.0))
        self.register_buffer("_arange", torch.arange(2))
        self.register_buffer("patch_size_buffer", torch.tensor([patch_size], dtype=torch.int32))

    def forward(self, x: Tensor) -> Tensor:
        if self.patch_size > 1:
            first = x[:, :, :1].expand(-1, -1, self.patch_size - 1, -1, -1)
            x = torch.cat([first, x], dim=2)
        for _ in range(self.num_levels):
            x = self._analyse(x)
        return x

    def _analyse(self, x: Tensor) -> Tensor:
        batch, channels, frames, height, width = x.shape
        w0 = self.wavelets[0].to(x.dtype)
        w1 = self.wavelets[1].to(x.dtype)
        y = x.reshape(batch, 1, channels, frames, height, width)
        for axis in (3, 4, 5):
            pairs = y.unflatten(axis, [-1, 2])
            a = pairs.select(axis + 1, 0) * w0
            b = pairs.select(axis + 1, 1) * w1
            # A new fastest-varying subband digit: t is the most significant, w the least.
            y = torch.stack([a + b, a - b], dim=2).flatten(1, 2)
        return y.flatten(1, 2) / self.level_scale


class HaarUnpatcher3D(nn.Module):
    """Inverse of :class:`HaarPatcher3D`: (B, C·p³, t, h, w) to (B, C, 1 + (t−1)·p, h·p, w·p)."""

    def __init__(self, patch_size: int) -> None:
        super().__init__()
        self.patch_size = patch_size
        self.num_levels = int(math.log2(patch_size))
        self.level_scale = 2.0 * math.sqrt(2.0)
        self.register_buffer("wavelets", torch.tensor([1.0, 1.0]) / math.sqrt(2.0))
        self.register_buffer("_arange", torch.arange(2))

    def forward(self, x: Tensor) -> Tensor:
        for _ in range(self.num_levels):
            x = self._synthesise(x)
        return x[:, :, self.patch_size - 1 :]

    def _synthesise(self, x: Tensor) -> Tensor:
        w0 = self.wavelets[0].to(x.dtype)
        w1 = self.wavelets[1].to(x.dtype)
        y = x.unflatten(1, [8, -1])
        for axis in (5, 4, 3):
            digits = y.unflatten(1, [-1, 2])
            low = digits.select(2, 0)
            high = digits.select(2, 1)
            y = torch.stack([(low + high) * w0, (low - high) * w1], dim=axis + 1).flatten(axis, axis + 1)
        return y.flatten(1, 2) * self.level_scale
