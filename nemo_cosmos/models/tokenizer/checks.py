"""What encoders and decoders take: shapes, types and values, refused in words before they give nonsense."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Protocol

import torch
from torch import Tensor

from nemo_cosmos.errors import InputError

RANGE_TOLERANCE = 0.01
"""By how much a video may leave [−1, 1]: more than rounding, less than a video in another range."""


class Geometry(Protocol):
    """What is checked against: a ``TokenizerConfig``, or another tokenizer's."""

    @property
    def name(self) -> str: ...
    @property
    def temporal_compression(self) -> int: ...
    @property
    def spatial_compression(self) -> int: ...
    @property
    def in_channels(self) -> int: ...
    @property
    def latent_channels(self) -> int: ...
    @property
    def codebook_size(self) -> int: ...


def check_frames(config: Geometry, num_frames: int) -> None:
    """InputError naming the nearest legal counts unless ``num_frames`` is 1 + k·temporal_compression."""
    step = config.temporal_compression
    if num_frames < 1 or (num_frames - 1) % step:
        below = max(num_frames - 1, 0) // step * step + 1
        raise InputError(
            f"{num_frames} frames do not fit tokenizer {config.name}, whose temporal compression is {step}: "
            f"expected 1 + k*{step}; nearest legal {below} or {below + step}"
        )


def check_video(config: Geometry, video: Tensor) -> None:
    """InputError unless ``video`` has a type and a shape that the tokenizer compresses without remainder."""
    shape = tuple(video.shape)
    if video.ndim != 5 or shape[1] != config.in_channels:
        raise InputError(f"video of shape {shape}: {config.name} expects (B, {config.in_channels}, T, H, W)")
    if not video.is_floating_point():
        raise InputError(
            f"video of type {video.dtype}: {config.name} expects floating point in [-1, 1]; of frames in 0...255 that "
            "is x / 127.5 - 1"
        )
    if shape[0] < 1:
        raise InputError(f"video of shape {shape}: the batch is empty")
    check_frames(config, shape[2])
    for axis, value in (("height", shape[3]), ("width", shape[4])):
        step = config.spatial_compression
        if value % step or value < step:
            below, above = value // step * step, (value // step + 1) * step
            near = f"{below} or {above}" if below else str(above)
            raise InputError(
                f"video {axis} {value} is not a multiple of {config.name}'s spatial compression {step}: "
                f"nearest legal {near}"
            )


def check_latent(config: Geometry, latent: Tensor) -> None:
    """InputError unless ``latent`` holds continuous latents or codes (B, C, t, h, w)."""
    shape = tuple(latent.shape)
    if latent.ndim != 5 or shape[1] != config.latent_channels:
        raise InputError(
            f"latents of shape {shape}: tokenizer {config.name} expects (B, {config.latent_channels}, t, h, w)"
        )
    if not latent.is_floating_point():
        raise InputError(f"latents of type {latent.dtype}: tokenizer {config.name} expects floating point")
    if 0 in shape:
        raise InputError(f"latents of shape {shape}: nothing is in them")


def check_indices(config: Geometry, indices: Tensor) -> None:
    """InputError unless ``indices`` holds integers (B, t, h, w); values are checked by :func:`checked_values`."""
    shape = tuple(indices.shape)
    is_integer = not (indices.is_floating_point() or indices.is_complex() or indices.dtype == torch.bool)
    if not is_integer or indices.ndim != 4:
        raise InputError(
            f"decode of the discrete tokenizer {config.name} takes integer indices (B, t, h, w), "
            f"got {indices.dtype} of shape {shape}; decode codes with decode_codes"
        )
    if 0 in shape:
        raise InputError(f"indices of shape {shape}: nothing is in them")


@contextlib.contextmanager
def checked_values(config: Geometry, values: Tensor) -> Iterator[None]:
    """Around the use of a video or of indices: InputError unless they lie in [−1, 1], or within the codebook.

    On a GPU the extremes are computed ahead and read when the work has been launched, so that nothing waits for them.
    """
    if values.is_meta:
        yield
        return
    lowest, highest = torch.aminmax(values if values.is_floating_point() else values.long())
    if values.is_cuda:
        yield
        _check_extremes(config, values, lowest.item(), highest.item())
    else:
        _check_extremes(config, values, lowest.item(), highest.item())
        yield


def _check_extremes(config: Geometry, values: Tensor, lowest: float, highest: float) -> None:
    if not values.is_floating_point():
        if not 0 <= lowest <= highest < config.codebook_size:
            raise InputError(
                f"indices from {lowest} to {highest}: the codebook of {config.name} has {config.codebook_size} codes, "
                f"0 to {config.codebook_size - 1}"
            )
    elif not -1 - RANGE_TOLERANCE <= lowest <= highest <= 1 + RANGE_TOLERANCE:
        raise InputError(
            f"video with values from {lowest:g} to {highest:g}: {config.name} expects [-1, 1]; of frames in 0...255 "
            "that is x / 127.5 - 1"
        )
