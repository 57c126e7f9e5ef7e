"""Deterministic parameters and inputs of the reference values."""

from __future__ import annotations

import math
import zlib

import numpy as np
import torch
from torch import Tensor

from nemo_cosmos.models.dit import CosmosDiT


def hash_uniform(count: int, seed: int) -> np.ndarray:
    """Uniform numbers in [-0.5, 0.5) from an integer hash of their index."""
    h = (np.arange(count, dtype=np.uint64) + np.uint64(seed * 1000003)) & np.uint64(0xFFFFFFFF)
    for _ in range(2):
        h = (((h >> np.uint64(16)) ^ h) * np.uint64(0x45D9F3B)) & np.uint64(0xFFFFFFFF)
    h = (h >> np.uint64(16)) ^ h
    return (h.astype(np.float64) + 0.5) / 2**32 - 0.5


def hash_tensor(shape: tuple[int, ...], seed: int, scale: float = 1.0) -> Tensor:
    values = math.sqrt(12) * scale * hash_uniform(math.prod(shape), seed)
    return torch.from_numpy(values.reshape(shape)).float()


def hash_parameters(shapes: dict[str, tuple[int, ...]]) -> dict[str, Tensor]:
    """Values for named parameters, by the rank of the name in ASCII order."""
    out = {}
    for j, name in enumerate(sorted(shapes)):
        shape = shapes[name]
        u = torch.from_numpy(hash_uniform(math.prod(shape), j + 1).reshape(shape))
        if name.endswith("bias"):
            value = 0.2 * u
        elif len(shape) >= 2:
            value = math.sqrt(12) * u / math.sqrt(math.prod(shape[1:]))
        else:
            value = 1 + 0.4 * u
        out[name] = value.float()
    return out


def named_normal(name: str, shape: tuple[int, ...]) -> Tensor:
    """Normal numbers seeded by the CRC-32 of a name."""
    values = np.random.RandomState(zlib.crc32(name.encode())).standard_normal(shape)
    return torch.from_numpy(values).float()


def normal_parameters(shapes: dict[str, tuple[int, ...]]) -> dict[str, Tensor]:
    return {
        name: 0.05 * named_normal(name, shape) if len(shape) == 2 else 1 + 0.1 * named_normal(name, shape)
        for name, shape in shapes.items()
    }


def count_parameters(net: CosmosDiT) -> int:
    return sum(p.numel() for p in net.parameters())
