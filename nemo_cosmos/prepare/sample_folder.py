"""The folder that rendered data is written to: what it holds is of one kind and one group of settings."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from nemo_cosmos.atomic import holds_files, write_json
from nemo_cosmos.data.manifest import read_json
from nemo_cosmos.errors import InputError

SETTINGS_NAME = "sample_data.json"
SPLITS = ("train", "held_out")
SMALLEST_SIDE = 16


def claim_folder(out: Path, wanted: dict[str, Any], kind: str = "shapes") -> None:
    """Make ``out`` with a record of the settings, or find that of an earlier call.

    Raises:
        InputError: ``out`` holds clips of other settings or of another kind, or other files.
    """
    record = out / SETTINGS_NAME
    if kind != "shapes":  # Folders of shapes were written before there were kinds.
        wanted = {"kind": kind, **wanted}
    if record.is_file():
        found = {"kind": "shapes", **read_json(record)}
        differing = [name for name in ("kind", *wanted) if found.get(name) != wanted.get(name, kind)]
        if differing:
            name = differing[0]
            raise InputError(
                f"{out} holds clips rendered with {name}={found.get(name)}, not {wanted.get(name, kind)}: name "
                "another folder or delete this one"
            )
    elif out.exists() and (not out.is_dir() or holds_files(out)):
        raise InputError(f"{out} exists and holds no rendered clips: name a new folder")
    out.mkdir(parents=True, exist_ok=True)
    write_json(record, wanted)


def require_size(size: tuple[int, int], name: str = "--size", *, even: bool = True) -> None:
    """InputError unless pictures of (height, width) can be rendered, and written as video where ``even``."""
    if min(size) < SMALLEST_SIDE or (even and (size[0] % 2 or size[1] % 2)):
        numbers = "even numbers" if even else "numbers"
        raise InputError(f"{name} {size[0]}x{size[1]}: expected {numbers} of at least {SMALLEST_SIDE} pixels")


def split_folders(out: Path, held_out: int) -> Iterator[tuple[int, Path]]:
    """Number and folder of each part: ``out`` itself where nothing is held out, else its :data:`SPLITS`."""
    yield from enumerate([out / name for name in SPLITS] if held_out else [out])
