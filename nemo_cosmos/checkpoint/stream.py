"""A ``.pt`` file written tensor by tensor, so that memory holds one of them at a time."""

from __future__ import annotations

import mmap
import os
import struct
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Protocol, runtime_checkable

import torch
from rich.console import Console
from rich.progress import track
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

_CENTRAL_ENTRY = 46
"""Bytes of an entry of a zip file's directory before its name; the checksum stands at byte 16 (APPNOTE 4.3.12)."""


@runtime_checkable
class LazyTensors(Protocol):
    """A mapping that knows its tensors without making them."""

    def shape_of(self, name: str) -> tuple[int, ...]: ...
    def dtype_of(self, name: str) -> torch.dtype: ...


def write_archive(path: Path, tensors: Mapping[str, Tensor], *, description: str | None = None) -> None:
    """What ``torch.save(dict(tensors), path)`` writes, checksums included.

    The file is laid out first and its space reserved; each tensor is then asked for and copied to its place.

    Args:
        description: shown beside a progress bar; None shows nothing.

    Raises:
        OSError, RuntimeError: the disk is full or the folder not writable.
    """
    outline = {name: (shape_of(tensors, name), dtype_of(tensors, name)) for name in tensors}
    with FakeTensorMode():
        skeleton = {name: torch.empty(shape, dtype=dtype) for name, (shape, dtype) in outline.items()}
        with torch.serialization.skip_data(materialize_fake_tensors=True):
            torch.save(skeleton, path)
    with path.open("r+b") as file:
        # A mapped file that the disk has no room for ends the process without a word.
        os.posix_fallocate(file.fileno(), 0, os.fstat(file.fileno()).st_size)
    with torch.serialization.set_default_mmap_options(mmap.MAP_SHARED):
        places = torch.load(path, map_location="cpu", mmap=True, weights_only=True)
    checksums = []
    console = Console(stderr=True)
    for name in track(list(tensors), description or "", console=console, disable=description is None):
        place = places.pop(name)
        place.copy_(tensors[name])
        checksums.append(zlib.crc32(place.reshape(-1).view(torch.uint8).numpy()))
        del place
    _write_checksums(path, checksums)


def shape_of(tensors: Mapping[str, Tensor], name: str) -> tuple[int, ...]:
    """The shape of a tensor, without making it where the mapping knows."""
    return tensors.shape_of(name) if isinstance(tensors, LazyTensors) else tuple(tensors[name].shape)


def dtype_of(tensors: Mapping[str, Tensor], name: str) -> torch.dtype:
    """The dtype of a tensor, without making it where the mapping knows."""
    return tensors.dtype_of(name) if isinstance(tensors, LazyTensors) else tensors[name].dtype


def _write_checksums(path: Path, checksums: list[int]) -> None:
    """Fill in those of the records ``data/0``, ``data/1`` …, which torch numbers in the order of the tensors."""
    with zipfile.ZipFile(path) as archive:
        entries, at = archive.infolist(), archive.start_dir
    with path.open("r+b") as file:
        for entry in entries:
            file.seek(at)
            header = file.read(_CENTRAL_ENTRY)
            lengths = struct.unpack_from("<HHH", header, 28)
            folder, _, number = entry.filename.rpartition("/")
            if folder.endswith("/data") and number.isdigit():
                checksum = struct.pack("<L", checksums[int(number)])
                file.seek(at + 16)
                file.write(checksum)
                if entry.flag_bits & 8:
                    file.seek(_descriptor(file, entry) + 4)
                    file.write(checksum)
            at += _CENTRAL_ENTRY + sum(lengths)
        file.flush()
        os.fsync(file.fileno())


def _descriptor(file: IO[bytes], entry: zipfile.ZipInfo) -> int:
    """Where the record's data descriptor begins, which repeats the checksum after the data (APPNOTE 4.3.9)."""
    file.seek(entry.header_offset + 26)
    name, extra = struct.unpack("<HH", file.read(4))
    return entry.header_offset + 30 + name + extra + entry.compress_size
