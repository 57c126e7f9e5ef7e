"""Frame counts of videos that have been probed: those of this process, and those in ``frame_counts.json`` of a run.

A count holds for a file of the same path, size and time of change, and for the versions that found it.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av

from nemo_cosmos.atomic import write_json
from nemo_cosmos.errors import InputError
from nemo_cosmos.version import __version__

logger = logging.getLogger(__name__)
FRAME_COUNTS = "frame_counts.json"
_RULES = 1
"""Raised when videos are counted by other rules."""


@dataclass(frozen=True)
class Mark:
    """What tells that a file is still the same; ``modified`` in nanoseconds."""

    size: int
    modified: int


@dataclass(frozen=True)
class Count:
    """Evenly spaced frames of a video, and what is wrong with it after them, if anything."""

    frames: int
    damage: str = ""


def mark_of(path: Path) -> Mark:
    """The mark of a file as it is now."""
    try:
        stat = path.stat()
    except OSError:
        return Mark(0, 0)  # Probing says what is wrong.
    return Mark(stat.st_size, stat.st_mtime_ns)


class FrameCounts:
    """Counts by file; damage is told of when a count is first used."""

    def __init__(self) -> None:
        self._used: dict[str, tuple[Mark, Count]] = {}
        self._offered: dict[str, tuple[Mark, Count]] = {}

    def find(self, path: Path, mark: Mark) -> Count | None:
        """The count of a file, None where it has changed or is new."""
        name = os.path.abspath(path)
        used = self._used.get(name)
        if used is not None and used[0] == mark:
            return used[1]
        offered = self._offered.pop(name, None)
        if offered is None or offered[0] != mark:
            return None
        self.add(path, *offered)
        return offered[1]

    def add(self, path: Path, mark: Mark, count: Count) -> None:
        """Remember a count that has been found; ``mark`` is from before that."""
        if count.damage:
            logger.warning("%s; its first %d frames are used", count.damage, count.frames)
        self._used[os.path.abspath(path)] = mark, count

    def pack(self, files: Iterable[Path] | None = None) -> dict[str, Any]:
        """What has been used as values of JSON, of these files or of all."""
        names = self._used if files is None else [n for n in map(os.path.abspath, files) if n in self._used]
        counts = {}
        for name in names:
            mark, count = self._used[name]
            counts[name] = [mark.size, mark.modified, count.frames, *([count.damage] if count.damage else [])]
        return {"found_by": _found_by(), "counts": counts}

    def offer(self, packed: Any) -> None:
        """Take what :meth:`pack` gave, here or elsewhere, for files that are asked for; anything else is ignored."""
        if not isinstance(packed, dict) or packed.get("found_by") != _found_by():
            return
        counts = packed.get("counts")
        for name, values in counts.items() if isinstance(counts, dict) else ():
            if _is_count(values):
                self._offered[name] = Mark(*values[:2]), Count(*values[2:])

    def load(self, folder: Path) -> None:
        """Offer what a run folder keeps; a damaged file is as none."""
        file = folder / FRAME_COUNTS
        try:
            if file.is_file():
                self.offer(json.loads(file.read_bytes()))
        except (OSError, ValueError, RecursionError):
            logger.info("%s is damaged: the videos are probed again", file)

    def save(self, folder: Path) -> None:
        """Keep in a run folder what has been used."""
        try:
            write_json(folder / FRAME_COUNTS, self.pack(), indent=None)
        except (OSError, InputError) as error:
            logger.warning("%s is not written, the next start probes the videos again: %s", FRAME_COUNTS, error)


def _found_by() -> dict[str, Any]:
    return {"rules": _RULES, "nemo_cosmos": __version__, "av": av.__version__}


def _is_count(values: Any) -> bool:
    return (
        isinstance(values, list)
        and [type(value) for value in values] in ([int] * 3, [int] * 3 + [str])
        and min(values[:3]) >= 0
    )
