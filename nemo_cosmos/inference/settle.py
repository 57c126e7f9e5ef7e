"""What is asked for, settled once the network is known: requests, settings and the folder of the results."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from nemo_cosmos.errors import InputError
from nemo_cosmos.inference.config import GenerationConfig
from nemo_cosmos.inference.pipelines import pipeline_for
from nemo_cosmos.inference.requests import GenerationRequest
from nemo_cosmos.models.dit.config import DiTConfig

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Settled:
    """What a job is made of besides its models."""

    requests: list[GenerationRequest]
    config: GenerationConfig
    output: Path


def settle(
    dit: DiTConfig,
    requests: list[GenerationRequest],
    settings: Mapping[str, Any],
    output: Path,
    *,
    aspect_ratio: str | None = None,
    source: Path | None = None,
    name: str | None = None,
) -> Settled:
    """Defaults and limits of what the network makes.

    Args:
        dit: the network.
        requests: as they were named.
        settings: of ``GenerationConfig`` by name, None for a default.
        output: folder of the results, or the file of a single image.
        aspect_ratio: size of an image instead of height and width.
        source: the dataset that the requests are from, None for others. A network without condition mask takes the
            captions alone; others begin with a clip's first frames.
        name: what the user calls a single result.

    Raises:
        InputError: no pipeline runs the network, a setting without effect, or a file where a folder is needed.
    """
    kind = pipeline_for(dit)
    folder, named = kind.place(output)
    settings = dict(settings)
    if named:
        requests = [_as_file(requests, named.pop("name"), output, name, settings)]
        settings |= named
    if source is not None and not dit.condition_mask:
        logger.info("%s: captions alone are read, the network takes no image or video", source)
        requests = [replace(request, visual_input=None, visual_inputs=None) for request in requests]
    elif source is not None:
        settings["input_from"] = settings["input_from"] or "start"
    return Settled(requests, kind.configure(settings, aspect_ratio, dit=dit), folder)


def _as_file(
    requests: list[GenerationRequest], stem: str, output: Path, name: str | None, settings: Mapping[str, Any]
) -> GenerationRequest:
    if len(requests) != 1:
        raise InputError(f"{output} is the name of one image, {len(requests)} are asked for: name a folder")
    if name is not None:
        raise InputError(f"name={name}: {output} names the image already; leave one of them out")
    if settings.get("image_format") is not None:
        raise InputError(f"image_format={settings['image_format']}: {output} says the format; leave one of them out")
    return replace(requests[0], name=stem)
