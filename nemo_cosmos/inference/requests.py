"""What to generate: a list of requests from flags, a JSONL file or a folder of clips."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path

from nemo_cosmos.errors import InputError

VIDEO_SUFFIXES = (".mp4", ".mov", ".mkv", ".webm", ".avi")


@dataclass(frozen=True)
class GenerationRequest:
    """One video to make.

    Attributes:
        name: stem of the output files.
        prompt: text, may be empty where the prompt upsampler writes it from the input.
        visual_input: image or video the video starts from; None for text alone.
        seed: overrides the seed of the settings.
    """

    name: str
    prompt: str = ""
    visual_input: Path | None = None
    seed: int | None = None

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[^/\\\0]+", self.name) or self.name.startswith("."):
            raise InputError(f"output name {self.name!r}: expected a file name without folder or leading dot")


def collect_requests(
    *,
    prompt: str | None = None,
    visual_input: Path | None = None,
    source: Path | None = None,
    batch: Path | None = None,
    limit: int | None = None,
    name: str = "output",
) -> list[GenerationRequest]:
    """The requests that the command line names, by exactly one way: prompt and/or input, folder of clips, or JSONL.

    Raises:
        InputError: no way or several were named, or what it names is wrong.
    """
    single = prompt is not None or visual_input is not None
    if single + (source is not None) + (batch is not None) != 1:
        raise InputError(
            "say what to generate by one of: a prompt (with or without an input), a source folder, a batch"
        )
    if source is not None:
        return requests_from_clips(source, limit=limit)
    if batch is not None:
        return requests_from_jsonl(batch)[:limit]
    if limit is not None:
        raise InputError("a limit applies to a source folder or a batch, not to a single prompt")
    return [GenerationRequest(name, (prompt or "").strip(), visual_input)]


def requests_from_jsonl(path: Path) -> list[GenerationRequest]:
    """One request a line: an object with ``prompt`` and/or ``visual_input`` (relative to the working directory or to
    the file), optionally ``name`` (default: the line's number from 0) and ``seed``.

    Raises:
        InputError: the file is missing or empty, or a line is no such object; the message names the line.
    """
    if not path.is_file():
        raise InputError(f"{path} does not exist")
    requests = []
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    for number, line in enumerate(lines):
        where = f"{path}, line {number + 1}"
        try:
            values = json.loads(line)
        except ValueError as error:
            raise InputError(f"{where}: no JSON object ({error})") from error
        known = {"prompt": str, "visual_input": str, "name": str, "seed": int}
        if not isinstance(values, dict) or not values:
            raise InputError(f"{where}: expected an object with prompt and visual_input")
        for key, value in values.items():
            if key not in known:
                raise InputError(f"{where}: unknown field {key!r}; expected {', '.join(known)}")
            if value is not None and (not isinstance(value, known[key]) or isinstance(value, bool)):
                raise InputError(f"{where}: {key}={value!r}, expected a {known[key].__name__}")
        given = values.get("visual_input")
        requests.append(
            GenerationRequest(
                name=values.get("name") or str(number),
                prompt=(values.get("prompt") or "").strip(),
                visual_input=_resolve(given, path.parent) if given else None,
                seed=values.get("seed"),
            )
        )
    if not requests:
        raise InputError(f"{path} holds no request")
    return check_names(requests, str(path))


def requests_from_clips(folder: Path, *, limit: int | None = None) -> list[GenerationRequest]:
    """One request per clip of ``videos/*.mp4`` with caption ``metas/<stem>.txt`` (the HD-VILA layout), by name.

    Raises:
        InputError: there is no clip, or a clip has no caption.
    """
    videos = sorted(p for p in (folder / "videos").glob("*") if p.suffix.lower() in VIDEO_SUFFIXES)
    if not videos:
        raise InputError(f"{folder / 'videos'} holds no video; expected videos/*.mp4 with captions in metas/*.txt")
    requests = []
    for video in videos[:limit]:
        caption = folder / "metas" / f"{video.stem}.txt"
        if not caption.is_file():
            raise InputError(f"{video} has no caption: expected {caption}")
        requests.append(GenerationRequest(video.stem, caption.read_text(encoding="utf-8").strip(), video))
    return check_names(requests, str(folder))


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
    return path if path.is_absolute() or path.exists() or not beside.exists() else beside
