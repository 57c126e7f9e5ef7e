"""A ``.pt`` file written tensor by tensor, so that memory holds one of them at a time."""

from __future__ import annotations

import os
import struct
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Protocol, runtime_checkable

import torch
from rich.console import Console
from rich.progress import track
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

_ENTRY, _LOCAL = 46, 30
"""Bytes before the name of an entry in a zip file's directory, and of the header before a record (APPNOTE 4.3)."""
_WRITE_BYTES = 1 << 27


@runtime_checkable
class LazyTensors(Protocol):
    """A mapping that knows its tensors without making them."""

    def shape_of(self, name: str) -> tuple[int, ...]: ...
    def dtype_of(self, name: str) -> torch.dtype: ...


def write_archive(path: Path, tensors: Mapping[str, Tensor], *, description: str | None = None) -> None:
    """What ``torch.save(dict(tensors), path)`` writes, checksums included; tensors are asked for one by one.

    Args:
        description: shown beside a progress bar; None shows nothing.

    Raises:
        OSError, RuntimeError: the disk is full or the folder not writable.
    """
    lay_out(path, tensors)
    console = Console(stderr=True)
    fill(path, tensors, track(list(tensors), description or "", console=console, disable=description is None))


def lay_out(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write the file without its values, and reserve their space; errors as :func:`write_archive`."""
    outline = {name: (shape_of(tensors, name), dtype_of(tensors, name)) for name in tensors}
    with FakeTensorMode():
        skeleton = {name: torch.empty(shape, dtype=dtype) for name, (shape, dtype) in outline.items()}
        with torch.serialization.skip_data(materialize_fake_tensors=True):
            torch.save(skeleton, path)
    with path.open("r+b") as file:
        os.posix_fallocate(file.fileno(), 0, os.fstat(file.fileno()).st_size)


def fill(path: Path, tensors: Mapping[str, Tensor], names: Iterable[str]) -> None:
    """Write some of the tensors to their places in a file that is laid out; several processes may do so at once.

    Args:
        tensors: as for :func:`lay_out`.
        names: those to write.
    """
    numbers = {name: number for number, name in enumerate(tensors)}
    records = _records(path)
    with path.open("r+b") as file:
        for name in names:
            records[numbers[name]].write(file, tensors[name])
        file.flush()
        os.fsync(file.fileno())


def shape_of(tensors: Mapping[str, Tensor], name: str) -> tuple[int, ...]:
    """The shape of a tensor, without making it where the mapping knows."""
    return tensors.shape_of(name) if isinstance(tensors, LazyTensors) else tuple(tensors[name].shape)


def dtype_of(tensors: Mapping[str, Tensor], name: str) -> torch.dtype:
    """The dtype of a tensor, without making it where the mapping knows."""
    return tensors.dtype_of(name) if isinstance(tensors, LazyTensors) else tensors[name].dtype


@dataclass(frozen=True)
class _Record:
    """One tensor's place in the file: its data, and the two places of its checksum."""

    data: int
    checksums: tuple[int, ...]

    def write(self, file: IO[bytes], tensor: Tensor) -> None:
        values = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data
        file.seek(self.data)
        for start in range(0, len(values), _WRITE_BYTES):
            file.write(values[start : start + _WRITE_BYTES])
        for place in self.checksums:
            file.seek(place)
            file.write(struct.pack("<L", zlib.crc32(values)))


def _records(path: Path) -> dict[int, _Record]:
    """The records ``data/0``, ``data/1`` …, which torch numbers in the order of the tensors."""
    out: dict[int, _Record] = {}
    with zipfile.ZipFile(path) as archive, path.open("rb") as file:
        for entry, at in _directory(file, archive):
            folder, _, number = entry.filename.rpartition("/")
            if not (folder.endswith("/data") and number.isdigit()):
                continue
            file.seek(entry.header_offset + 26)
            data = entry.header_offset + _LOCAL + sum(struct.unpack("<HH", file.read(4)))
            # A descriptor behind the data repeats the checksum where the header could not know it (APPNOTE 4.3.9).
            descriptor = (data + entry.compress_size + 4,) if entry.flag_bits & 8 else ()
            out[int(number)] = _Record(data, (at + 16, *descriptor))
    return out


def _directory(file: IO[bytes], archive: zipfile.ZipFile) -> Iterator[tuple[zipfile.ZipInfo, int]]:
    """Entries of the archive's directory, and where each begins."""
    at = archive.start_dir
    for entry in archive.infolist():
        yield entry, at
        file.seek(at + 28)
        at += _ENTRY + sum(struct.unpack("<HHH", file.read(6)))
