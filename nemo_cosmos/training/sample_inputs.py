"""Whether samples hold what the network is told beside their latents."""

from __future__ import annotations

from typing import Any

from nemo_cosmos.data.shards import ShardDataset
from nemo_cosmos.errors import InputError
from nemo_cosmos.models.dit import DiTConfig

RAYS = frozenset({"plucker", "camera_poses"})
"""Tensors of a stored sample of which either gives it camera rays."""
MOST_LOOKED_AT = 20_000
"""Samples of a larger dataset are looked at evenly spread; what is between them is found when it is read."""


def refuse_other_rays(source: Any, dit: DiTConfig, path: str) -> None:
    """Stop before a network with camera rays is given samples without them, or another one samples with them.

    Args:
        source: the samples; of shards no latent is read.
        path: names them in errors.

    Raises:
        InputError: names the first such sample, how many there are, and what to do.
    """
    wanted, count = bool(dit.plucker_channels), len(source)
    looked_at = range(0, count, 1 + count // MOST_LOOKED_AT)
    if not isinstance(source, ShardDataset):
        looked_at = looked_at[:1]
    other = [number for number in looked_at if _has_rays(source, number) != wanted]
    if not other:
        return
    named = f"{path}: sample {source.keys[other[0]]!r}"
    more = f" and {len(other) - 1} more of {len(looked_at)}" if len(other) > 1 else f" of {len(looked_at)}"
    if wanted:
        raise InputError(
            f"{named}{more} {'have' if len(other) > 1 else 'has'} no camera rays, which the network takes: prepare "
            "scenes with poses (nemo-cosmos prepare --layout dl3dv), or train a network without rays"
        )
    raise InputError(
        f"{named}{more} {'have' if len(other) > 1 else 'has'} camera rays, which the network does not take: choose "
        "one with camera control (experiment=camera_control_7b_dl3dv), or prepare the videos without poses"
    )


def _has_rays(source: Any, number: int) -> bool:
    if isinstance(source, ShardDataset):
        return bool(RAYS & source.tensor_names(number))
    return source[number].plucker is not None
