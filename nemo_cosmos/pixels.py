"""Pixels as files hold them, levels from 0 to 255, and as tokenizers take and give them, numbers in [-1, 1].

Every frame passes here on its way in and out, so that what is trained on, generated, measured and shown is the same.
"""

from __future__ import annotations

import torch
from torch import Tensor


def from_levels(levels: Tensor) -> Tensor:
    """Levels from 0 to 255, uint8 or float, to fp32 in [-1, 1]: x / 127.5 - 1; any shape, same device."""
    return levels.to(torch.float32, copy=True).div_(127.5).sub_(1.0)


def to_levels(video: Tensor) -> Tensor:
    """Numbers in [-1, 1] to the nearest whole level from 0 to 255, in fp32; what lies outside is clamped.

    Ties go to the even level. Undoes :func:`from_levels`.
    """
    return ((video.float() + 1.0) * 127.5).round().clamp(0.0, 255.0)


def to_uint8(video: Tensor) -> Tensor:
    """:func:`to_levels` as uint8."""
    return to_levels(video).to(torch.uint8)
