"""A folder that keeps windows of videos decoded, so that each is decoded once for all visits, processes and runs.

A window is one file of raw levels behind a short header. Its name is a digest of what the frames depend on, so that a
video that changes, or is read by other versions, gets files of its own.
"""

from __future__ import annotations

import hashlib
import json
import os
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from nemo_cosmos.atomic import finished_file
from nemo_cosmos.data.shards import disk_error
from nemo_cosmos.errors import InputError
from nemo_cosmos.training.tokenizer.frame_counts import Mark, found_by, mark_of

_HEADER = struct.Struct("<8s3I")
_MAGIC = b"rgb24/1\n"


@dataclass(frozen=True)
class DecodedWindows:
    """Windows kept in ``folder``; any number of processes may read and write there at once."""

    folder: Path

    def get(self, path: Path, start: int, count: int, decode: Callable[[Path, int, int], Tensor]) -> Tensor:
        """Frames (3, count, H, W) uint8 as ``decode(path, start, count)`` gives them, which is asked at most once.

        Raises:
            InputError: ``decode`` refuses the video, or the file system the folder.
        """
        mark = mark_of(path)
        file = self.folder / _name(path, mark, start, count)
        frames = _read(file, count)
        if frames is None:
            frames = decode(path, start, count)
            if mark_of(path) == mark:
                _write(file, frames)
        return frames


def open_decoded(folder: str | None) -> DecodedWindows | None:
    """The windows of ``data.decoded``, whose folder is made where it is missing; None: nothing is kept.

    Raises:
        InputError: there can be no such folder.
    """
    if not folder:
        return None
    path = Path(folder).absolute()
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"data.decoded={folder}: {disk_error(error, path)}") from error
    return DecodedWindows(path)


def _name(path: Path, mark: Mark, start: int, count: int) -> str:
    key = [os.path.abspath(path), mark.size, mark.modified, start, count, found_by()]
    return hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:40] + ".rgb"


def _read(file: Path, count: int) -> Tensor | None:
    """What is kept; None where there is nothing, or something cut short or of another kind."""
    try:
        with file.open("rb") as stream:
            header = stream.read(_HEADER.size)
            if len(header) < _HEADER.size:
                return None
            magic, frames, height, width = _HEADER.unpack(header)
            size = 3 * frames * height * width
            if magic != _MAGIC or frames != count or os.fstat(stream.fileno()).st_size != _HEADER.size + size:
                return None
            levels = torch.empty((3, frames, height, width), dtype=torch.uint8)
            return levels if stream.readinto(levels.numpy()) == size else None  # type: ignore[arg-type]
    except FileNotFoundError:
        return None
    except OSError as error:
        raise disk_error(error, file.parent) from error


def _write(file: Path, frames: Tensor) -> None:
    try:
        with finished_file(file) as temporary, temporary.open("wb") as stream:
            stream.write(_HEADER.pack(_MAGIC, *frames.shape[1:]))
            stream.write(frames.contiguous().numpy().data)
    except OSError as error:
        raise disk_error(error, file.parent) from error
