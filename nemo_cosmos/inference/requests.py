"""What to generate: a list of requests from flags, a JSONL file or a dataset of clips."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nemo_cosmos.data.listing import numbered_lines, require_path
from nemo_cosmos.data.rig import Camera
from nemo_cosmos.errors import InputError, require_text
from nemo_cosmos.prepare.sources import SourceOptions, open_source
from nemo_cosmos.typed import parse_json

if TYPE_CHECKING:
    from nemo_cosmos.inference.inputs import GivenFrames

logger = logging.getLogger(__name__)
CAMERA = "{camera}"
"""In a path: stands for the folder of each camera."""
LONGEST_NAME = 230
"""Bytes; suffixes and the marks of temporary files come to it, and file systems take 255."""


@dataclass(frozen=True)
class View:
    """One camera of a request, once the cameras are known.

    Attributes:
        camera: which.
        prompt: its caption, None where it has none.
        given: image or video that it starts from; None for none, or where one video holds all views.
    """

    camera: Camera
    prompt: str | None = None
    given: Path | GivenFrames | None = None


@dataclass(frozen=True)
class GenerationRequest:
    """One video to make, or one of several cameras.

    Attributes:
        name: stem of the output files.
        prompt: text, may be empty where the prompt upsampler writes it from the input. With several cameras: text, or
            a file or folder of captions.
        visual_input: image or video the video starts from; None for text alone. With several cameras: one that holds
            all views, a folder with one for each camera, or a path with ``{camera}`` in it.
        seed: overrides the seed of the settings.
        has_prompt: the prompt was given although it is empty, as captions may be; it is used as it is.
        frames: image or video in memory, instead of ``visual_input``.
        prompts: instead of ``prompt``, captions by camera, or of all views in order.
        other_prompts: captions of cameras that are told none where ``prompt`` is one text.
        visual_inputs: instead of ``visual_input``, image or video of each camera, or in memory of all views in order.
        views: the cameras in the order of their ids, filled in once they are known.
        embedding: file with the text embedding of all views, filled in likewise.
        trajectory: of the camera, for networks with camera rays: a pose file or folder, or a move such as
            ``orbit_left:0.3``.
    """

    name: str
    prompt: str = ""
    visual_input: Path | None = None
    seed: int | None = None
    has_prompt: bool = False
    frames: GivenFrames | None = None
    prompts: Mapping[str, str] | tuple[str, ...] | None = None
    other_prompts: Mapping[str, str] = field(default_factory=dict)
    visual_inputs: Mapping[str, Path | GivenFrames] | tuple[GivenFrames, ...] | None = None
    views: tuple[View, ...] = ()
    embedding: Path | None = None
    trajectory: str | None = None

    @property
    def given(self) -> Path | GivenFrames | None:
        """What the video starts from; of several cameras, the first one's."""
        own = self.visual_input if self.frames is None else self.frames
        return own if own is not None else next((view.given for view in self.views if view.given is not None), None)

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[^/\\\0]+", self.name) or self.name.startswith("."):
            raise InputError(f"output name {self.name!r}: expected a file name without folder or leading dot")
        try:
            length = len(os.fsencode(self.name))
        except UnicodeEncodeError as error:
            raise InputError(f"output name {self.name!r} is no text that a file can be named by") from error
        if length > LONGEST_NAME:
            raise InputError(f"output name {self.name[:40]!r}… has {length} bytes; expected at most {LONGEST_NAME}")
        if self.seed is not None and not 0 <= self.seed < 2**63:
            raise InputError(f"{self.name}: the seed is out of range; expected 0 to 2^63-1")
        texts = self.prompts.values() if isinstance(self.prompts, Mapping) else self.prompts or ()
        for text in (self.prompt, *texts):
            require_text(text, f"{self.name}: the prompt")


def collect_requests(
    *,
    prompt: str | None = None,
    visual_input: Path | None = None,
    source: Path | None = None,
    batch: Path | None = None,
    limit: int | None = None,
    name: str = "output",
    rig: str | Path | None = None,
) -> list[GenerationRequest]:
    """The requests that the command line names, by exactly one way: prompt and/or input, dataset of clips, or JSONL.

    ``rig`` says which folders of a dataset are cameras.

    Raises:
        InputError: no way or several were named, or what it names is wrong.
    """
    single = prompt is not None or visual_input is not None
    if single + (source is not None) + (batch is not None) != 1:
        raise InputError(
            "say what to generate by one of: a prompt (with or without an input), a source folder, a batch"
        )
    if source is not None:
        return requests_from_clips(source, limit=limit, rig=rig)
    if batch is not None:
        return requests_from_jsonl(batch)[:limit]
    if limit is not None:
        raise InputError("a limit applies to a source folder or a batch, not to a single prompt")
    return [GenerationRequest(name, (prompt or "").strip(), visual_input, has_prompt=prompt is not None)]


def requests_from_jsonl(path: Path) -> list[GenerationRequest]:
    """One request a line: an object with ``prompt`` and/or ``visual_input`` (relative to the working directory or to
    the file), optionally ``name`` (default: the line's number from 0), ``seed`` and ``trajectory`` (a path likewise,
    or a move of the camera). Blank lines count as lines.

    For several cameras, prompts may be objects by camera or lists, and inputs objects by camera.

    Raises:
        InputError: the file is missing or empty, or a line is no such object; the message names the line.
    """
    requests = []
    for number, line in numbered_lines(path):
        where = f"{path}, line {number}"
        try:
            values = parse_json(line)
        except ValueError as error:
            raise InputError(f"{where}: no JSON object ({error})") from error
        known = {"prompt": str, "visual_input": str, "name": str, "seed": int, "trajectory": str}
        if not isinstance(values, dict) or not values:
            raise InputError(f"{where}: expected an object with prompt and visual_input")
        for key, value in values.items():
            if key not in known:
                raise InputError(f"{where}: unknown field {key!r}; expected {', '.join(known)}")
            if isinstance(value, dict | list) and key in ("prompt", "visual_input"):
                require_by_camera(value, f"{where}: {key}", lists=key == "prompt")
            elif value is not None and (not isinstance(value, known[key]) or isinstance(value, bool)):
                raise InputError(f"{where}: {key}={value!r}, expected a {known[key].__name__}")
        given, trajectory = values.get("visual_input"), values.get("trajectory")
        for key, name in (("name", values.get("name")), ("visual_input", given), ("trajectory", trajectory)):
            require_path(name if isinstance(name, str) else "", f"{where}: {key}")
        if isinstance(given, dict):
            given = {camera: _resolve(file, path.parent) for camera, file in given.items()}
        elif given:
            given = _resolve(given, path.parent)
        requests.append(
            GenerationRequest(
                name=values.get("name") or str(number - 1),
                seed=values.get("seed"),
                has_prompt=values.get("prompt") is not None,
                **asked_for(values.get("prompt"), given),
                trajectory=str(_resolve(trajectory, path.parent)) if trajectory else None,
            )
        )
    if not requests:
        raise InputError(f"{path} holds no request")
    return check_names(requests, str(path))


def asked_for(prompt: Any, given: Any) -> dict[str, Any]:
    """Fields of a request by name, for a prompt and an input of one video or of several cameras."""
    several = not isinstance(prompt, str | None)
    return {
        "prompt": "" if several else (prompt or "").strip(),
        "prompts": (prompt if isinstance(prompt, dict) else tuple(prompt)) if several else None,
        "visual_input": Path(given) if given and not isinstance(given, dict) else None,
        "visual_inputs": {camera: Path(file) for camera, file in given.items()} if isinstance(given, dict) else None,
    }


def require_by_camera(value: Any, where: str, *, lists: bool) -> None:
    """InputError unless a value of a JSON file holds texts by camera, or with ``lists`` a list of texts."""
    texts = value.values() if isinstance(value, dict) else value if lists and isinstance(value, list) else None
    if texts is None or not all(isinstance(text, str | None) for text in texts):
        raise InputError(f"{where}={str(value)[:80]}: expected text, or texts by camera" + (" or a list" * lists))
    for text in texts:
        require_path(text or "", where)


def requests_from_clips(
    source: Path, *, limit: int | None = None, rig: str | Path | None = None
) -> list[GenerationRequest]:
    """One request per clip of a dataset in any layout that ``prepare`` reads, by name, from its video or image and its
    caption; with several cameras, from those of each.

    Raises:
        InputError: there is no clip, or a clip has no caption.
    """
    opened = open_source(source, options=SourceOptions(captions_needed=False, rig=rig))
    if opened.rig is not None:  # Captions of cameras are looked for only where they are needed.
        opened = open_source(source, options=SourceOptions(rig=rig))
    clips = sorted(opened.clips, key=lambda clip: clip.title)
    if opened.not_read:
        logger.info("%s: not read, for their suffixes: %s", source, opened.not_read)
    if opened.note:
        logger.info("%s", opened.note)
    requests = []
    for clip in clips[:limit]:
        if opened.rig is None and not clip.has_caption:
            raise InputError(f"{clip.video} has no caption: {clip.caption_place}")
        title = clip.title.lstrip(".")
        name = title if title and len(os.fsencode(title)) <= LONGEST_NAME else clip.key
        if opened.rig is None:
            requests.append(GenerationRequest(name, clip.read_caption(), clip.video, has_prompt=True))
        else:
            prompts = {view.camera: view.read_caption() for view in clip.views}
            inputs: dict[str, Path | GivenFrames] = {view.camera: view.video for view in clip.views}
            requests.append(GenerationRequest(name, prompts=prompts, visual_inputs=inputs))
    return check_names(requests, str(source))


def check_names(requests: list[GenerationRequest], where: str) -> list[GenerationRequest]:
    """The requests, or InputError when two would write the same file."""
    seen: set[str] = set()
    for request in requests:
        if request.name in seen:
            raise InputError(f"{where}: two requests are named {request.name!r}")
        seen.add(request.name)
    return requests


def _resolve(given: str, folder: Path) -> Path:
    path = Path(given)
    beside = folder / path
    return path if path.is_absolute() or _is_there(path) or not _is_there(beside) else beside


def _is_there(path: Path) -> bool:
    """Whether a path exists; of one with a camera in it, what stands before that."""
    before, camera, _ = str(path).partition(CAMERA)
    return os.path.exists(before) if camera else os.path.exists(path)
