"""The cameras of a generation, and what each of them is told and given."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from nemo_cosmos.data.rig import Camera, Rig, read_rig
from nemo_cosmos.errors import InputError
from nemo_cosmos.inference.config import GenerationConfig, WeightDefaults
from nemo_cosmos.inference.requests import GenerationRequest, View
from nemo_cosmos.inference.view_captions import captions_of
from nemo_cosmos.inference.view_inputs import check_alike, check_stacked, find_inputs
from nemo_cosmos.models.dit.config import DiTConfig


def rig_for(dit: DiTConfig, config: GenerationConfig, defaults: WeightDefaults, released: str) -> Rig:
    """The cameras of a generation: the user's, else those of the training data, else the first of a released rig.

    Args:
        dit: the network.
        config: of which ``rig`` and ``num_views`` count.
        defaults: of which the cameras of the training data count.
        released: name of the rig that the released network was trained with.

    Raises:
        InputError: the number of views is not that of the rig, the network knows fewer, or a run that has lost its
            shards does not say its cameras.
    """
    asked, named = config.num_views, config.rig or defaults.rig
    if named is not None:
        if asked not in (None, len(named.cameras)):
            who = named.source if config.rig is not None else "the training data"
            raise InputError(
                f"num_views={asked}: {who} names {len(named.cameras)} cameras, {named}; leave the number out, or "
                "name a rig of that many"
            )
    elif asked is None and defaults.of_run:
        raise InputError("the run does not say which cameras it was trained on: give a rig, or the number of views")
    else:
        named = numbered_rig(dit.num_views if asked is None else asked, released)
    if beyond := [
        f"{camera.folder} ({camera.view_id})" for camera in named.cameras if camera.view_id >= dit.num_views
    ]:
        raise InputError(
            f"cameras beyond the network's table of {dit.num_views} views, ids 0 to {dit.num_views - 1}: "
            f"{', '.join(beyond)}"
        )
    return named


def numbered_rig(count: int, released: str) -> Rig:
    """``count`` cameras with the ids from 0 on, called as in a released rig as far as that has them."""
    known = {camera.view_id: camera for camera in read_rig(released).cameras}
    cameras = tuple(known.get(number) or Camera(f"view_{number}", number, f"view {number}") for number in range(count))
    return Rig(released, cameras, cameras[0].folder)


def rig_record(rig: Rig) -> dict[str, Any]:
    """What of a rig shapes a result, as plain values."""
    return {
        "cameras": [[c.folder, c.view_id, c.name, c.frame_repeat] for c in rig.cameras],
        "front": rig.front,
    }


def with_views(
    request: GenerationRequest, rig: Rig, config: GenerationConfig, defaults: WeightDefaults
) -> GenerationRequest:
    """A request whose cameras are known, each with its caption and its input; before any model is loaded.

    Raises:
        InputError: captions or inputs that do not fit the cameras or each other, with the list of them.
    """
    captions, inputs = captions_of(request, rig), find_inputs(request, rig)
    if not captions.texts and captions.embedding is None:
        raise InputError(f"{request.name}: no prompt; give the caption of {rig.front}, or of several cameras: {rig}")
    check_alike(inputs, config, defaults, request.name)
    if config.input_stacking != GenerationConfig.input_stacking and (inputs or request.visual_input is None):
        raise InputError(
            f"{request.name}: input_stacking={config.input_stacking} says how one input video holds all views, and "
            "there is none: leave it out"
        )
    if request.frames is not None:
        if len(rig.cameras) > 1:
            raise InputError(
                f"{request.name}: frames of one camera in memory, but there are {len(rig.cameras)}: give an array "
                f"(V, T, H, W, 3), or those of each camera: {rig}"
            )
        inputs = {rig.front: request.frames}
    views = tuple(
        View(camera, captions.texts.get(camera.folder), inputs.get(camera.folder))
        for camera in sorted(rig.cameras, key=lambda camera: camera.view_id)
    )
    # One file that holds all views stays as it is named.
    whole = None if inputs else request.visual_input
    if whole is not None:
        check_stacked(whole, len(rig.cameras), config, defaults)
    return replace(request, views=views, embedding=captions.embedding, visual_input=whole, frames=None)
