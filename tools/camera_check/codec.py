"""A codec that needs no training steps: the principal components of blocks of pixels, as causal as a tokenizer."""

from __future__ import annotations

import torch
from torch import Tensor

CHANNELS, CELL, COMPRESSION = 16, 8, 4


class Components:
    """Mean, basis and standard deviations of blocks (n, size), of which 16 numbers are kept."""

    def __init__(self, blocks: Tensor) -> None:
        self.mean = blocks.mean(0)
        _, _, self.basis = torch.pca_lowrank(blocks - self.mean, q=CHANNELS, center=False, niter=4)
        self.spread = ((blocks - self.mean) @ self.basis).std(0)

    def encode(self, blocks: Tensor) -> Tensor:
        return (blocks - self.mean) @ self.basis / self.spread

    def decode(self, numbers: Tensor) -> Tensor:
        return numbers * self.spread @ self.basis.T + self.mean


class BlockCodec:
    """(N, T, H, W, 3) uint8 frames <-> (N, 16, t, h, w) latents: the first frame alone, then four frames at a time.

    Args:
        frames: clips that the components are of.
    """

    def __init__(self, frames: Tensor) -> None:
        torch.manual_seed(0)
        first, rest = self._blocks(frames)
        self.first, self.rest = Components(first.flatten(0, 2)), Components(rest.flatten(0, 3)[::3])

    def encode(self, frames: Tensor) -> Tensor:
        first, rest = self._blocks(frames)
        return torch.cat([self.first.encode(first)[:, None], self.rest.encode(rest)], 1).permute(0, 4, 1, 2, 3)

    def decode(self, latents: Tensor) -> Tensor:
        """(N, T, H, W, 3) float from -1 to 1."""
        numbers = latents.permute(0, 2, 3, 4, 1)
        first, rest = self.first.decode(numbers[:, 0]), self.rest.decode(numbers[:, 1:])
        n, t, h, w, _ = rest.shape
        start = first.reshape(n, h, w, CELL, CELL, 3).permute(0, 1, 3, 2, 4, 5).reshape(n, 1, h * CELL, w * CELL, 3)
        parts = rest.reshape(n, t, h, w, COMPRESSION, CELL, CELL, 3).permute(0, 1, 4, 2, 5, 3, 6, 7)
        return torch.cat([start, parts.reshape(n, t * COMPRESSION, h * CELL, w * CELL, 3)], 1).clamp(-1, 1)

    @staticmethod
    def _blocks(frames: Tensor) -> tuple[Tensor, Tensor]:
        """(N, h, w, 192) of first frames, (N, t, h, w, 768) of the others."""
        pixels = frames.float() / 127.5 - 1
        n, frames_, height, width, _ = pixels.shape
        h, w, t = height // CELL, width // CELL, (frames_ - 1) // COMPRESSION
        first = pixels[:, 0].reshape(n, h, CELL, w, CELL, 3).permute(0, 1, 3, 2, 4, 5).reshape(n, h, w, -1)
        rest = pixels[:, 1:].reshape(n, t, COMPRESSION, h, CELL, w, CELL, 3).permute(0, 1, 3, 5, 2, 4, 6, 7)
        return first, rest.reshape(n, t, h, w, -1)
