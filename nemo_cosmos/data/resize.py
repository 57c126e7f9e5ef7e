"""Bring frames of any shape to the size that is encoded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from nemo_cosmos.choices import Fit
from nemo_cosmos.errors import InputError

FITS: tuple[Fit, ...] = get_args(Fit)


@dataclass(frozen=True)
class Geometry:
    """How a source frame fills a target frame: resize to ``resized``, cut or pad to the target.

    Attributes:
        resized: (height, width) after scaling.
        top: first row cut off (positive) or rows of padding above (negative).
        left: the same for columns.
    """

    resized: tuple[int, int]
    top: int
    left: int


def geometry(source: tuple[int, int], size: tuple[int, int], fit: Fit) -> Geometry:
    """Scaling and cut of a (height, width) source for a (height, width) target; InputError for an unknown ``fit``."""
    if fit not in FITS:
        raise InputError(f"fit={fit!r}: expected one of {', '.join(FITS)}")
    if fit == "stretch":
        return Geometry(size, 0, 0)
    scales = (size[0] / source[0], size[1] / source[1])
    scale = max(scales) if fit == "crop" else min(scales)
    bound = max if fit == "crop" else min
    height = max(1, bound(round(source[0] * scale), size[0]))
    width = max(1, bound(round(source[1] * scale), size[1]))
    return Geometry((height, width), _half(height - size[0]), _half(width - size[1]))


def resize(
    image: Tensor,
    size: tuple[int, int],
    fit: Fit = "crop",
    *,
    shown: tuple[int, int] | None = None,
    mirror: bool = False,
) -> Tensor:
    """(3, H, W) uint8 -> (3, *size) uint8, bilinear with antialiasing; bars added by ``pad`` are black.

    Args:
        image: pixels as stored.
        size: (height, width) of the result.
        fit: how the image fills ``size``.
        shown: (height, width) as displayed, where the stored pixels are not square; None: the image's own.
        mirror: bars added by ``pad`` show the image mirrored at its border, as often as they are wide.
    """
    plan = geometry((image.shape[1], image.shape[2]) if shown is None else shown, size, fit)
    if tuple(image.shape[1:]) != plan.resized:
        image = F.interpolate(
            image.unsqueeze(0).contiguous(memory_format=torch.channels_last),
            plan.resized,
            mode="bilinear",
            antialias=True,
            align_corners=False,
        ).squeeze(0)
    if fit == "pad" and mirror:
        rows = _mirrored(image.shape[1], -plan.top, size[0])
        return image[:, rows][:, :, _mirrored(image.shape[2], -plan.left, size[1])].contiguous()
    if fit == "pad":
        top, left = -plan.top, -plan.left
        image = F.pad(image, (left, size[1] - left - image.shape[2], top, size[0] - top - image.shape[1]))
        return image.contiguous()
    return image[:, plan.top : plan.top + size[0], plan.left : plan.left + size[1]].contiguous()


def _mirrored(side: int, before: int, target: int) -> Tensor:
    """Which of ``side`` rows stands in each of ``target``, of which ``before`` come first; the outermost is not
    doubled."""
    period = max(2 * (side - 1), 1)
    places = (torch.arange(target) - before) % period
    return torch.minimum(places, period - places).clamp(max=side - 1)


def kept_share(source: tuple[int, int], size: tuple[int, int], fit: Fit) -> float:
    """How much of a (height, width) source a (height, width) target shows, from 0 to 1."""
    if fit != "crop":
        return 1.0
    ratio = source[0] * size[1] / (source[1] * size[0])
    return min(ratio, 1 / ratio)


def padding_mask(
    source: tuple[int, int], size: tuple[int, int], fit: Fit, compression: int, *, nearest: bool = False
) -> Tensor | None:
    """(1, size[0] / compression, size[1] / compression) uint8 with 1 where a latent cell shows padding alone.

    Args:
        source: (height, width) of the source frames.
        size: (height, width) of the encoded frames, multiples of ``compression``.
        fit: as in ``read_frames``.
        compression: pixels per latent cell.
        nearest: 1 where the first pixel of a cell is padding, as in the samples of camera-controlled networks.

    Returns:
        The mask, or None when nothing is padded.
    """
    if fit != "pad":
        return None
    plan = geometry(source, size, fit)
    pixels = torch.ones(1, 1, *size)
    pixels[..., -plan.top : plan.resized[0] - plan.top, -plan.left : plan.resized[1] - plan.left] = 0
    cells = pixels[..., ::compression, ::compression] if nearest else -F.max_pool2d(-pixels, compression)
    mask = cells.squeeze(0).to(torch.uint8)
    return mask if bool(mask.any()) else None


def _half(value: int) -> int:
    """Half of a difference, rounded towards zero, so that padding (negative) splits like cropping."""
    return value // 2 if value >= 0 else -(-value // 2)
