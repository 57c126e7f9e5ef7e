"""Captions of a request of several cameras: a text, a file of lines, texts by camera, or ready embeddings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nemo_cosmos.data.clips import read_caption_file
from nemo_cosmos.data.rig import Rig
from nemo_cosmos.errors import InputError, require_file
from nemo_cosmos.inference.requests import CAMERA, GenerationRequest
from nemo_cosmos.models.torch_files import load_restricted
from nemo_cosmos.typed import parse_json, read_text, read_yaml

_LONGEST_PATH = 4096


@dataclass(frozen=True)
class Captions:
    """What the views of a request are told to show.

    Attributes:
        texts: caption by folder of its camera; cameras without one are not in it.
        embedding: file with the embeddings of all views instead.
    """

    texts: dict[str, str] = field(default_factory=dict)
    embedding: Path | None = None


def captions_of(request: GenerationRequest, rig: Rig) -> Captions:
    """The captions that a request names.

    A prompt that ends in ``.txt`` is a file with a line for each camera, in the order of the rig, or with one line for
    the front camera; ``.json``, ``.yaml`` and ``.yml`` hold texts by camera, or a list of them; ``.pt`` embeddings; a
    folder has ``CAMERA.txt`` or ``CAMERA/CLIP.txt``, and ``{camera}`` in a path stands for each of them. Anything else
    is the caption of the front camera.

    Raises:
        InputError: a file that is not there, that does not fit the cameras, or names others.
    """
    if request.prompts is not None:
        return Captions(_assigned(request.prompts, rig, request.name))
    path = _as_path(request.prompt)
    if path is None:
        front = {rig.front: request.prompt} if request.prompt or request.has_prompt else {}
        return Captions({**_assigned(request.other_prompts, rig, request.name), **front})
    if CAMERA in str(path):
        return Captions(_each(path, rig))
    if path.is_dir():
        return Captions(_in_folder(path, rig))
    require_file(path, f"{request.name}: captions ")
    suffix = path.suffix.lower()
    if suffix == ".pt":
        return Captions(embedding=path)
    if suffix == ".txt":
        return Captions(_lines(path, rig))
    return Captions(_assigned(_parsed(path), rig, str(path)))


def read_view_embeddings(path: Path, rig: Rig, text_length: int, width: int) -> Tensor:
    """(V, L, width) fp32 from a file with a tensor [1, V x L, width], views in the order of the rig.

    Raises:
        InputError: it holds anything else, or more rows for each view than the network was trained with.
    """
    found, count = load_restricted(path), len(rig.cameras)
    expected = f"expected a tensor of [1, {count} x {text_length}, {width}], rows of one camera after another"
    if not isinstance(found, Tensor):
        raise InputError(f"{path} holds a {type(found).__name__}; {expected}")
    rows = found.squeeze(0) if found.ndim == 3 and found.shape[0] == 1 else found
    fits = (
        rows.ndim == 2 and rows.is_floating_point() and rows.shape[1] == width and rows.shape[0] == count * text_length
    )
    if not fits:
        raise InputError(f"{path} holds {tuple(found.shape)} {found.dtype}; {expected}: {rig}")
    rows = rows.float()
    if not bool(torch.isfinite(rows).all()):
        raise InputError(f"{path} holds numbers that are not finite")
    return rows.unflatten(0, (count, text_length))


def _as_path(prompt: str) -> Path | None:
    """The file or folder that a prompt names; None for a text."""
    if not prompt or "\n" in prompt or "\0" in prompt or len(prompt) > _LONGEST_PATH:
        return None
    path = Path(prompt)
    if path.suffix.lower() in (".txt", ".pt", ".json", ".yaml", ".yml"):
        return path
    try:
        return path if path.is_dir() else None
    except OSError:
        return None


def _assigned(given: Any, rig: Rig, where: str) -> dict[str, str]:
    """Captions by camera of a mapping or of a list in the order of the rig; empty ones are none."""
    if isinstance(given, Mapping):
        if unknown := [str(name)[:80] for name in given if name not in rig.folders]:
            raise InputError(f"{where}: captions of unknown cameras: {', '.join(unknown)}; the cameras are {rig}")
        texts = dict(given)
    elif isinstance(given, Sequence) and not isinstance(given, str):
        if len(given) != len(rig.cameras):
            raise InputError(f"{where}: {len(given)} captions for {len(rig.cameras)} cameras: {rig}")
        texts = dict(zip(rig.folders, given, strict=True))
    else:
        raise InputError(f"{where}: expected captions by camera, or a list of them; the cameras are {rig}")
    if odd := [name for name, text in texts.items() if text is not None and not isinstance(text, str)]:
        raise InputError(f"{where}: the captions of {', '.join(odd)} are no text")
    return {name: text.strip() for name, text in texts.items() if text and text.strip()}


def _lines(path: Path, rig: Rig) -> dict[str, str]:
    lines = read_text(path).splitlines()
    while len(lines) > len(rig.cameras) and not lines[-1].strip():
        lines.pop()
    if len(lines) == 1:
        return _assigned({rig.front: lines[0]}, rig, str(path))
    if len(lines) != len(rig.cameras):
        raise InputError(
            f"{path} has {len(lines)} lines, expected one for each of {len(rig.cameras)} cameras, in this order, "
            f"empty for none: {rig}; or a single line for {rig.front}"
        )
    return _assigned(lines, rig, str(path))


def _parsed(path: Path) -> Any:
    if path.suffix.lower() != ".json":
        return read_yaml(path)
    text = read_text(path)
    try:
        return parse_json(text)
    except ValueError as error:
        raise InputError(f"{path}: no JSON ({error})") from error


def _each(pattern: Path, rig: Rig) -> dict[str, str]:
    """Captions of a path with the camera in it; a camera without such a file has none."""
    files = {folder: Path(str(pattern).replace(CAMERA, folder)) for folder in rig.folders}
    found = {folder: read_caption_file(file) for folder, file in files.items() if file.is_file()}
    if not found:
        raise InputError(f"{pattern}: no such file for any of the cameras {rig}")
    return {folder: text for folder, text in found.items() if text}


def _in_folder(folder: Path, rig: Rig) -> dict[str, str]:
    """Captions of ``CAMERA.txt`` or of the only ``CAMERA/*.txt``."""
    found: dict[str, list[Path]] = {}
    for file in sorted((*folder.glob("*.txt"), *folder.glob("*/*.txt"))):
        found.setdefault(file.stem if file.parent == folder else file.parent.name, []).append(file)
    if unknown := [name for name in found if name not in rig.folders]:
        raise InputError(f"{folder}: captions of unknown cameras: {', '.join(unknown)}; the cameras are {rig}")
    if not found:
        raise InputError(f"{folder}: no caption there; expected CAMERA.txt for the cameras {rig}")
    if several := [name for name, files in found.items() if len(files) > 1]:
        raise InputError(
            f"{folder}: several captions of {', '.join(several)}; name those of one clip, such as "
            f"{folder}/{CAMERA}/CLIP.txt"
        )
    texts = {name: read_caption_file(files[0]) for name, files in found.items()}
    return {name: text for name, text in texts.items() if text}
