"""Finite scalar quantisation (Mentzer et al. 2023, arXiv:2309.15505) as the discrete Cosmos tokenizers use it."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


class FSQuantizer(nn.Module):
    """Rounds each of d channels to one of L_j levels; a code is an index in [0, ΠL_j) or a vector in [−1, 1]^d.

    Args:
        levels: number of levels per channel.

    Arithmetic is fp32 whatever the input's dtype: near a rounding boundary bf16 would pick another code.
    """

    def __init__(self, levels: tuple[int, ...]) -> None:
        super().__init__()
        basis = [math.prod(levels[:j]) for j in range(len(levels))]
        # Python lists beside the buffers: a constant must not travel through a (possibly cast) buffer.
        self.levels: list[int] = list(levels)
        self.basis: list[int] = basis
        self.half_width: list[float] = [(level - 1) * 1.001 / 2.0 for level in levels]
        self.offset: list[float] = [0.5 if level % 2 == 0 else 0.0 for level in levels]
        self.shift: list[float] = [math.atanh(o / h) for o, h in zip(self.offset, self.half_width, strict=True)]
        self.register_buffer("_levels", torch.tensor(levels, dtype=torch.int32))
        self.register_buffer("_basis", torch.tensor(basis, dtype=torch.int32))
        codebook = self.indices_to_codes(torch.arange(math.prod(levels)).view(1, 1, 1, -1))
        # Part of the released files; every entry is exact in bf16.
        self.register_buffer("implicit_codebook", codebook[0, :, 0, 0].transpose(0, 1).to(torch.bfloat16).contiguous())

    def _row(self, values: list[float], like: Tensor) -> Tensor:
        return torch.tensor(values, dtype=torch.float32, device=like.device).view(1, -1, 1, 1, 1)

    def bound(self, z: Tensor) -> Tensor:
        """Squash (B, d, t, h, w) into the open range of the levels, fp32."""
        half = self._row(self.half_width, z)
        return torch.tanh(z.float() + self._row(self.shift, z)) * half - self._row(self.offset, z)

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Indices (B, t, h, w) int32 and codes (B, d, t, h, w) in z's dtype, with straight-through gradient."""
        bounded = self.bound(z)
        rounded = bounded + (bounded.round() - bounded).detach()
        half_width = self._row([float(level // 2) for level in self.levels], z)
        codes = rounded / half_width
        basis = self._row([float(b) for b in self.basis], z)
        digits = rounded.detach().round() + half_width
        indices = (digits * basis).sum(dim=1).round().to(torch.int32)
        return indices, codes.to(z.dtype)

    def indices_to_codes(self, indices: Tensor) -> Tensor:
        """(B, t, h, w) integers to (B, d, t, h, w) fp32 codes."""
        codes: list[Tensor] = []
        for j in range(len(self.levels)):
            level = self.levels[j]
            digit = torch.div(indices.long(), self.basis[j], rounding_mode="floor") % level
            codes.append((digit.float() - float(level // 2)) / float(level // 2))
        return torch.stack(codes, dim=1)
