"""The Wan VAE in tests: tiny ones, the original layout of its files, and reproducible numbers."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor


def save_tiny_wan_vae(path: Path, *, base_dim: int = 4, num_res_blocks: int = 1, seed: int = 0) -> Path:
    """A folder of diffusers' AutoencoderKLWan: 16 latent channels, compression 4x8x8, a few kilobytes."""
    from diffusers import AutoencoderKLWan

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        vae = AutoencoderKLWan(base_dim=base_dim, dim_mult=[1, 1, 2, 2], num_res_blocks=num_res_blocks)
    vae.save_pretrained(path)
    return path


def original_layout(width: int = 96) -> dict[str, tuple[int, ...]]:
    """{name: shape} of the original file for widths of ``width`` times 1, 2, 4, 4, two residual blocks a level."""
    return dict(_entries(width))


def _conv(name: str, *shape: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield f"{name}.weight", shape
    yield f"{name}.bias", shape[:1]


def _residual(name: str, inner: int, outer: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield f"{name}.residual.0.gamma", (inner, 1, 1, 1)
    yield from _conv(f"{name}.residual.2", outer, inner, 3, 3, 3)
    yield f"{name}.residual.3.gamma", (outer, 1, 1, 1)
    yield from _conv(f"{name}.residual.6", outer, outer, 3, 3, 3)
    if inner != outer:
        yield from _conv(f"{name}.shortcut", outer, inner, 1, 1, 1)


def _middle(name: str, c: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield from _residual(f"{name}.0", c, c)
    yield f"{name}.1.norm.gamma", (c, 1, 1)
    yield from _conv(f"{name}.1.to_qkv", 3 * c, c, 1, 1)
    yield from _conv(f"{name}.1.proj", c, c, 1, 1)
    yield from _residual(f"{name}.2", c, c)


def _entries(w: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    down, up = "encoder.downsamples", "decoder.upsamples"
    yield from _conv("encoder.conv1", w, 3, 3, 3, 3)
    blocks = {0: (w, w), 1: (w, w), 3: (w, 2 * w), 4: (2 * w, 2 * w), 6: (2 * w, 4 * w), 7: (4 * w, 4 * w),
              9: (4 * w, 4 * w), 10: (4 * w, 4 * w)}  # fmt: skip
    for index, (inner, outer) in blocks.items():
        yield from _residual(f"{down}.{index}", inner, outer)
    for index, c in {2: w, 5: 2 * w, 8: 4 * w}.items():
        yield from _conv(f"{down}.{index}.resample.1", c, c, 3, 3)
        if index != 2:
            yield from _conv(f"{down}.{index}.time_conv", c, c, 3, 1, 1)
    yield from _middle("encoder.middle", 4 * w)
    yield "encoder.head.0.gamma", (4 * w, 1, 1, 1)
    yield from _conv("encoder.head.2", 32, 4 * w, 3, 3, 3)
    yield from _conv("conv1", 32, 32, 1, 1, 1)
    yield from _conv("conv2", 16, 16, 1, 1, 1)
    yield from _conv("decoder.conv1", 4 * w, 16, 3, 3, 3)
    yield from _middle("decoder.middle", 4 * w)
    widths = {0: 4, 1: 4, 2: 4, 5: 4, 6: 4, 8: 2, 9: 2, 10: 2, 12: 1, 13: 1, 14: 1}
    for index, multiple in widths.items():
        yield from _residual(f"{up}.{index}", multiple * w, multiple * w)
    yield from _residual(f"{up}.4", 2 * w, 4 * w)
    for index, multiple in {3: 4, 7: 4, 11: 2}.items():
        yield from _conv(f"{up}.{index}.resample.1", multiple * w // 2, multiple * w, 3, 3)
        if index != 11:
            yield from _conv(f"{up}.{index}.time_conv", 2 * multiple * w, multiple * w, 3, 1, 1)
    yield "decoder.head.0.gamma", (w, 1, 1, 1)
    yield from _conv("decoder.head.2", 3, w, 3, 3, 3)


def named_normal(name: str, shape: tuple[int, ...]) -> Tensor:
    """fp32 standard normal numbers that depend on the name alone."""
    values = np.random.RandomState(zlib.crc32(name.encode())).standard_normal(shape)
    return torch.from_numpy(np.asarray(values, dtype=np.float32))


def synthetic_weights(width: int = 96) -> dict[str, Tensor]:
    """Weights of the original layout, each from its name: scales near 1, small biases, convolutions of unit gain."""
    out = {}
    for name, shape in original_layout(width).items():
        z = named_normal(name, shape)
        if name.endswith("gamma"):
            out[name] = 1 + 0.1 * z
        elif len(shape) == 1:
            out[name] = 0.1 * z
        else:
            out[name] = z / float(np.prod(shape[1:])) ** 0.5
    return out
