"""Batches of the Predict2 commands: a JSON list of prompts with the files to write."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from nemo_cosmos.data.listing import require_path
from nemo_cosmos.errors import InputError
from nemo_cosmos.inference.requests import GenerationRequest, asked_for, require_by_camera
from nemo_cosmos.typed import parse_json, read_text

logger = logging.getLogger(__name__)
Asked = tuple[GenerationRequest, Path]
"""A request and the file that it is for."""


def requests_from_json(
    path: Path,
    *,
    output_key: str,
    input_key: str | None,
    suffix: str,
    by_camera: bool = False,
    input_needed: bool = True,
) -> list[Asked]:
    """One request an entry, an object with ``prompt``; entries without a prompt, or without their input, are passed over.

    Args:
        path: the JSON file.
        output_key: names the file to write; ``output_NUMBER`` with ``suffix`` in the working directory where it is left out.
        input_key: names the image or video to start from; None: there is none.
        suffix: of the default name, with its dot.
        by_camera: prompts may be objects by camera, or lists, and inputs objects by camera.
        input_needed: entries without their input are passed over; otherwise inputs are not looked at.

    Raises:
        InputError: no such list, an unknown field or one of another type, two entries for one file, or no request.
    """  # noqa: E501
    try:
        entries = parse_json(read_text(path))
    except InputError:
        raise
    except ValueError as error:
        raise InputError(f"{path}: no JSON ({error})") from error
    if not isinstance(entries, list):
        raise InputError(f"{path}: expected a JSON list of objects with prompt and {output_key}")
    asked: list[Asked] = []
    known = tuple(key for key in ("prompt", input_key, output_key) if key is not None)
    for number, entry in enumerate(entries):
        values = _entry(entry, known, f"{path}, entry {number}", by_camera)
        needed = ("prompt", input_key if input_needed else None)
        lacking = [key for key in needed if key is not None and not _says(values.get(key))]
        if lacking:
            logger.warning("%s, entry %d has no %s: passed over", path, number, lacking[0])
            continue
        file = Path(values.get(output_key) or f"output_{number}{suffix}")
        given = None if input_key is None or not input_needed else values[input_key]
        asked.append((request_for(file, values["prompt"], given, where=f"{path}, entry {number}"), file))
    if not asked:
        raise InputError(f"{path} holds no request: expected objects with {', '.join(known)}")
    files = [str(file) for _, file in asked]
    if twice := next((file for file in files if files.count(file) > 1), None):
        raise InputError(f"{path}: two entries are to be written to {twice}")
    return asked


def request_for(file: Path, prompt: Any, given: Any, *, where: str) -> GenerationRequest:
    """A request named as the file to write; InputError begins with ``where``.

    Args:
        file: to write.
        prompt: text, or with several cameras captions by camera or in a list.
        given: path, or paths by camera; None for no input.
        where: for messages.
    """
    try:
        return GenerationRequest(file.stem, has_prompt=True, **asked_for(prompt, given))
    except InputError as error:
        raise InputError(f"{where}: {error}") from error


def _says(value: Any) -> bool:
    return bool(value.strip() if isinstance(value, str) else value)


def _entry(entry: Any, known: tuple[str, ...], where: str, by_camera: bool) -> dict[str, Any]:
    if not isinstance(entry, dict):
        raise InputError(f"{where}: expected an object with {', '.join(known)}")
    for key, value in entry.items():
        if key not in known:
            raise InputError(f"{where}: unknown field {key[:80]!r}; expected {', '.join(known)}")
        if by_camera and not isinstance(value, str) and key != known[-1]:
            require_by_camera(value, f"{where}: {key}", lists=key == "prompt")
        elif value is not None and not isinstance(value, str):
            raise InputError(f"{where}: {key}={str(value)[:80]}, expected text")
        elif key != "prompt":
            require_path(value or "", f"{where}: {key}")
    return {key: value for key, value in entry.items() if value is not None}
