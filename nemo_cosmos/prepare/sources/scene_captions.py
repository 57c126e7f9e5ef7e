"""Captions of scenes: a dictionary in one file, pickled as the tools of DL3DV have it, or JSON."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path

from nemo_cosmos.data.text_pickle import load_texts
from nemo_cosmos.errors import InputError, require_file, require_text
from nemo_cosmos.typed import parse_json

MOST_BYTES = 1 << 30
_DAMAGE = (pickle.UnpicklingError, EOFError, ValueError, TypeError, LookupError, OverflowError, MemoryError)
EXPECTED = 'expected a dictionary of texts {"SCENE/CHUNK": CAPTION}, pickled or JSON'


def read_scene_captions(path: str | Path) -> dict[str, str]:
    """``{"SCENE/CHUNK" or "SCENE": caption}`` of a file; a pickle is read without unpickling.

    Raises:
        InputError: the file is unreadable, or holds anything but texts, such as code to run.
    """
    path = Path(path)
    require_file(path)
    if path.stat().st_size > MOST_BYTES:
        raise InputError(f"{path} has {path.stat().st_size >> 20} MiB: {EXPECTED}")
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error
    captions = _from_json(content, path) if _is_json(content) else _from_pickle(content, path)
    for key, caption in captions.items():
        require_text(key, f"{path}: the key")
        require_text(caption, f"{path}: the caption of {key[:80]!r}")
    return captions


def caption_of(captions: Mapping[str, str], scene: str, chunk: int) -> str | None:
    """The caption of a chunk; of its scene's first chunk, or of the scene, where it has none of its own."""
    names = (f"{scene}/{chunk}", f"{scene}/0", scene)
    return next((captions[name] for name in names if name in captions), None)


def _is_json(content: bytes) -> bool:
    # Protocol 0 of pickle begins with "(", later ones with 0x80.
    return content.removeprefix(b"\xef\xbb\xbf").lstrip()[:1] in (b"{", b"[", b'"')


def _from_json(content: bytes, path: Path) -> dict[str, str]:
    try:
        values = parse_json(content.decode("utf-8-sig"))
    except ValueError as error:
        raise InputError(f"{path} is damaged: no JSON ({error}); {EXPECTED}") from error
    if not isinstance(values, dict):
        raise InputError(f"{path} holds a {type(values).__name__}: {EXPECTED}")
    if odd := [key for key, value in values.items() if not isinstance(value, str)]:
        raise InputError(f"{path}: the caption of {odd[0][:80]!r} is a {type(values[odd[0]]).__name__}: {EXPECTED}")
    return values


def _from_pickle(content: bytes, path: Path) -> dict[str, str]:
    try:
        return load_texts(content)
    except _DAMAGE as error:
        reason = str(error) if isinstance(error, pickle.UnpicklingError) else "it is damaged"
        raise InputError(f"{path} was not loaded: {reason}; {EXPECTED}") from error
