"""Deterministic weights and inputs shared by the tokenizer tests, and reference values computed with them."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn


def hash_uniform(n: int, k: int) -> np.ndarray:
    """n reproducible numbers in (-0.5, 0.5) from an integer hash, the same on every platform."""
    h = (np.arange(n, dtype=np.uint64) + np.uint64(k * 1000003)) & np.uint64(0xFFFFFFFF)
    for _ in range(2):
        h = (((h >> np.uint64(16)) ^ h) * np.uint64(0x45D9F3B)) & np.uint64(0xFFFFFFFF)
    h = (h >> np.uint64(16)) ^ h
    return (h.astype(np.float64) + 0.5) / 2.0**32 - 0.5


def hash_tensor(shape: tuple[int, ...], k: int, scale: float = 1.0) -> Tensor:
    """Unit-variance (times scale²) fp32 tensor."""
    values = np.sqrt(12.0) * scale * hash_uniform(int(np.prod(shape)), k)
    return torch.from_numpy(values.astype(np.float32)).reshape(shape)


def fill_parameters(module: nn.Module) -> None:
    """Set every parameter from the hash, in lexicographic order of the names."""
    for j, (name, parameter) in enumerate(sorted(module.named_parameters())):
        u = torch.from_numpy(hash_uniform(parameter.numel(), j + 1)).reshape(parameter.shape)
        if name.endswith("bias"):
            value = 0.2 * u
        elif parameter.ndim >= 2:
            value = np.sqrt(12.0) * u / np.sqrt(parameter[0].numel())
        else:
            value = 1.0 + 0.4 * u
        with torch.no_grad():
            parameter.copy_(value.float())


def golden_video() -> Tensor:
    return hash_tensor((1, 3, 9, 32, 32), 77, 0.5).clamp(-1.0, 1.0)
