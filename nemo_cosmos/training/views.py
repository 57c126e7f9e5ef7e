"""Whether the views of the samples are views that the network has."""

from __future__ import annotations

from nemo_cosmos.config import DataConfig
from nemo_cosmos.data.positions import Bucket
from nemo_cosmos.errors import InputError
from nemo_cosmos.models.dit import DiTConfig


def check_views(bucket: Bucket, dit: DiTConfig) -> None:
    """Compare one kind of samples with the network.

    Raises:
        InputError: samples of several views for a network of one, or the reverse; a view id that the network's table
            lacks; frames that do not divide into the views, or too many of them.
    """
    frames, views = bucket.shape[1], bucket.num_views
    if not dit.multiview:
        if bucket.rigs:
            raise InputError(
                f"they hold {views} views ({_shown(bucket)}), the network takes one: choose a preset of several, "
                "such as predict2-2b-multiview"
            )
        return
    if not bucket.rigs:
        raise InputError(
            f"they do not say which cameras they show (view_ids), the network has {dit.num_views} views: prepare the "
            "clips again with the cameras of each, or choose a preset of one view"
        )
    if unknown := sorted({view for rig in bucket.rigs for view in rig if view >= dit.num_views}):
        raise InputError(
            f"view ids {', '.join(map(str, unknown))} (of {_shown(bucket)}): the network has views 0 to "
            f"{dit.num_views - 1}; model.overrides.num_views={unknown[-1] + 1} has more"
        )
    if frames % views:
        raise InputError(f"{frames} latent frames do not divide into {views} views ({_shown(bucket)})")
    if frames // views > dit.max_frames:
        raise InputError(
            f"{frames // views} latent frames a view are more than the network's {dit.max_frames} "
            "(model.overrides.max_frames)"
        )


def refuse_view_dropout(data: DataConfig, dit: DiTConfig) -> None:
    """InputError where ``data.view_dropout`` has no effect."""
    if data.view_dropout and not dit.multiview:
        raise InputError(
            f"data.view_dropout={data.view_dropout:g} has no effect on a network of one view; remove it, or choose a "
            "preset of several views"
        )


def _shown(bucket: Bucket) -> str:
    rigs = [f"[{', '.join(map(str, rig))}]" for rig in bucket.rigs[:3]]
    return ", ".join(rigs) + (", ..." if len(bucket.rigs) > 3 else "")
