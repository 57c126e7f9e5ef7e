"""The frames that a video starts from, out of an image or a video file, or as a program holds them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from nemo_cosmos.data.images import IMAGE_SUFFIXES, is_image, read_image
from nemo_cosmos.data.video import Fit, padding_mask, probe, read_frames, resize
from nemo_cosmos.errors import InputError
from nemo_cosmos.inference.config import GenerationConfig, WeightDefaults

__all__ = ["GivenFrames", "InputFrames", "is_image", "picture_size", "read_image", "read_input"]


@dataclass(frozen=True)
class GivenFrames:
    """An image or a video in memory.

    Attributes:
        frames: (3, n, H, W) uint8 RGB.
        name: stands for it in errors, "image" or "video".
    """

    frames: Tensor
    name: str


@dataclass(frozen=True)
class InputFrames:
    """Given frames, ready to encode.

    Attributes:
        frames: (3, n, H, W) uint8 RGB at the size of the video.
        fps: frame rate of the file, None for an image.
        padding_mask: (1, h, w) uint8 at latent resolution, 1 = padded; None when nothing is.
    """

    frames: Tensor
    fps: float | None
    padding_mask: Tensor | None = None


def read_input(
    path: Path | GivenFrames,
    size: tuple[int, int],
    config: GenerationConfig,
    defaults: WeightDefaults,
    spatial_compression: int,
    *,
    mirror: bool = False,
) -> InputFrames:
    """Reads ``config.num_input_frames`` frames at ``size`` (height, width), at the rate and step of training.

    Of frames in memory the first or last are taken as they are, without a rate. With ``mirror`` bars show the picture
    mirrored and a cell is padding where its first pixel is, as in samples with camera rays.

    Raises:
        InputError: the file is missing or does not decode, is too short, or is an image although more than one frame
            was asked for.
    """
    count, step, fit = config.num_input_frames, defaults.input_step, config.fit or defaults.fit
    if isinstance(path, GivenFrames):
        return _from_memory(path, size, config, fit, spatial_compression, mirror)
    if is_image(path) or _claims_to_be_image(path):
        if count != 1:
            raise InputError(f"{path} is an image: it gives 1 input frame, not num_input_frames={count}")
        image = read_image(path)
        source, frames, fps = (image.shape[1], image.shape[2]), resize(image, size, fit, mirror=mirror)[:, None], None
    else:
        info = probe(path)
        even_rate = defaults.input_fps or info.even_rate
        available = info.frames_at(even_rate)
        start = 0 if config.input_from == "start" else available - 1 - (count - 1) * step
        if info.damage and (config.input_from != "start" or start + (count - 1) * step >= available):
            raise InputError(info.damage)
        if start < 0 or start + (count - 1) * step >= available:
            every = f", one in {step}," if step > 1 else ""
            raise InputError(f"{path} has {available} frames{every} too few for num_input_frames={count}")
        read_size = None if mirror else size
        frames = read_frames(path, start, count, read_size, fit=fit, step=step, fps=even_rate)
        if mirror:
            frames = torch.stack([resize(frame, size, fit, mirror=True) for frame in frames.unbind(1)], dim=1)
        source, fps = (info.height, info.width), (even_rate or info.fps) / step
    mask = padding_mask(source, size, fit, spatial_compression, nearest=mirror)
    return InputFrames(frames, fps, mask)


def picture_size(given: Path | GivenFrames) -> tuple[int, int]:
    """(height, width) in pixels of an input as it is shown; InputError for a file that cannot be read."""
    if isinstance(given, GivenFrames):
        return given.frames.shape[2], given.frames.shape[3]
    if is_image(given) or _claims_to_be_image(given):
        image = read_image(given)
        return image.shape[1], image.shape[2]
    info = probe(given)
    return info.height, info.width


def _from_memory(
    given: GivenFrames,
    size: tuple[int, int],
    config: GenerationConfig,
    fit: Fit,
    spatial_compression: int,
    mirror: bool,
) -> InputFrames:
    count, (available, height, width) = config.num_input_frames, given.frames.shape[1:]
    if count > available:
        raise InputError(f"{given.name} has {available} frames, too few for num_input_frames={count}")
    start = 0 if config.input_from == "start" else available - count
    frames = [resize(frame, size, fit, mirror=mirror) for frame in given.frames[:, start : start + count].unbind(1)]
    mask = padding_mask((height, width), size, fit, spatial_compression, nearest=mirror)
    return InputFrames(torch.stack(frames, dim=1), None, mask)


def _claims_to_be_image(path: Path) -> bool:
    """Whether a file that is no known image has an image's suffix and is no video either: reading it says so."""
    if path.suffix.lower() not in IMAGE_SUFFIXES:
        return False
    try:
        probe(path)
    except InputError:
        return True
    return False
