"""Which pixel frames' rays a latent frame is given: it stands for a group of frames, and the network takes one ray.

A causal tokenizer of temporal compression c makes latent frame 0 of frame 0 alone, and latent frame k of the c frames
from c(k - 1) + 1 to c k.
"""

from __future__ import annotations

import torch
from torch import Tensor

from nemo_cosmos.camera.rays import CHANNELS
from nemo_cosmos.choices import TemporalMapping
from nemo_cosmos.errors import InputError

COMPRESSION = 8
"""Frames per latent frame after the first, of the tokenizers of Predict1."""
DEFAULT_MAPPING: TemporalMapping = "last"
"""Frames 0, c, 2c, ...: evenly spaced as latent frames are in the network's time, and both ends are among them."""


def num_latent_frames(frames: int, compression: int = COMPRESSION) -> int:
    """Latent frames of a clip; InputError unless it has 1 + k times ``compression`` frames."""
    if compression < 1 or frames < 1 or (frames - 1) % compression:
        shorter = max(frames - 1, 0) // max(compression, 1) * max(compression, 1) + 1
        raise InputError(
            f"{frames} frames cannot be latent frames of {compression} each after the first: expected 1 + a multiple "
            f"of {compression}, such as {shorter} or {shorter + max(compression, 1)}"
        )
    return 1 + (frames - 1) // compression


def frame_groups(frames: int, compression: int = COMPRESSION) -> list[range]:
    """Pixel frames of every latent frame."""
    latent_frames = num_latent_frames(frames, compression)
    return [range(1), *(range(compression * (k - 1) + 1, compression * k + 1) for k in range(1, latent_frames))]


def chosen_frames(frames: int, mapping: TemporalMapping, compression: int = COMPRESSION) -> list[int]:
    """The one frame of each group that ``first``, ``middle`` or ``last`` takes."""
    places = {"first": lambda group: 0, "middle": lambda group: len(group) // 2, "last": lambda group: -1}
    if mapping not in places:
        raise InputError(f"temporal mapping {mapping!r} takes no single frame: expected {', '.join(places)}")
    return [group[places[mapping](group)] for group in frame_groups(frames, compression)]


def to_latent_frames(
    plucker: Tensor,
    mapping: TemporalMapping = DEFAULT_MAPPING,
    compression: int = COMPRESSION,
    *,
    frames_first: bool = False,
) -> Tensor:
    """Rays per pixel frame -> rays per latent frame, (6, T, h, w) of the same dtype; in training and generation alike.

    Args:
        plucker: (6, N, h, w), N = 1 + k times ``compression``.
        mapping: ``first``, ``middle`` or ``last`` frame of each group, or ``mean``: the directions' mean made a unit
            vector, and the moments' mean divided by the same length, without its part along the direction, so that
            the six numbers are a line again; cells that are zero in all frames stay zero.
        compression: pixel frames per latent frame after the first.
        frames_first: ``plucker`` is (N, 6, h, w) instead, as in folders of eight files per sample.

    Raises:
        InputError: another shape or number of frames, or an unknown mapping.
    """
    if frames_first and plucker.ndim == 4:
        plucker = plucker.transpose(0, 1)
    if plucker.ndim != 4 or plucker.shape[0] != CHANNELS:
        order = "(frames, 6, h, w)" if frames_first else "(6, frames, h, w)"
        raise InputError(f"Plücker rays have shape {tuple(plucker.shape)}, expected {order}")
    if mapping == "mean":
        groups = frame_groups(plucker.shape[1], compression)
        return torch.stack([_mean_line(plucker[:, group.start : group.stop]) for group in groups], dim=1)
    return plucker[:, chosen_frames(plucker.shape[1], mapping, compression)].contiguous()


def _mean_line(group: Tensor) -> Tensor:
    """(6, n, h, w) -> (6, h, w)."""
    direction, moment = group.double().mean(1).split(3)
    length = direction.norm(dim=0, keepdim=True)
    length = torch.where(length > 0, length, 1)
    direction, moment = direction / length, moment / length
    moment = moment - (moment * direction).sum(0, keepdim=True) * direction
    return torch.cat([direction, moment]).to(group.dtype)
