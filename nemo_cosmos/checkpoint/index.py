"""What the index of a distributed save may say: its records are complete, and nothing reaches beyond its files."""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch.distributed.checkpoint.metadata import (
    BytesStorageMetadata,
    ChunkStorageMetadata,
    Metadata,
    MetadataIndex,
    TensorStorageMetadata,
)

from nemo_cosmos.errors import InputError
from nemo_cosmos.typed import plain_name

MOST_AXES = 16


def check_index(index: Metadata, where: str) -> None:
    """Look at every entry before anything is read or allocated by it.

    Args:
        where: names the index in errors.

    Raises:
        InputError: a record is incomplete or of another type, names a file elsewhere, or
            tells of a tensor that is larger than what is stored of it.
    """
    tensors, stored = getattr(index, "state_dict_metadata", None), getattr(index, "storage_data", None)
    if not isinstance(tensors, dict) or not isinstance(stored, dict):
        raise InputError(f"{where} is damaged: it does not say what is stored where")
    lengths: dict[str, int] = {}
    plain: set[str] = set()
    for key, info in stored.items():
        name = key.fqn if isinstance(key, MetadataIndex) else None
        file, start, length = (getattr(info, part, None) for part in ("relative_path", "offset", "length"))
        if type(name) is not str or type(file) is not str or not _is_size((start, length)):
            raise InputError(f"{where} is damaged: a place of {str(name)[:100]!r} is no file, start and length")
        if file not in plain:
            plain.add(plain_name(file, where))
        if getattr(info, "transform_descriptors", None):
            raise InputError(f"{where}: {name[:100]!r} is stored in a form that is not read here")
        lengths[name] = lengths.get(name, 0) + length  # type: ignore[operator]
    for name, tensor in tensors.items():
        if type(name) is not str or not isinstance(tensor, TensorStorageMetadata | BytesStorageMetadata):
            raise InputError(f"{where} is damaged: {str(name)[:100]!r} is no tensor")
        if isinstance(tensor, TensorStorageMetadata):
            _check_tensor(name, tensor, lengths.get(name, 0), where)


def _check_tensor(name: str, tensor: TensorStorageMetadata, length: int, where: str) -> None:
    dtype = getattr(getattr(tensor, "properties", None), "dtype", None)
    size: Any = getattr(tensor, "size", None)
    chunks = getattr(tensor, "chunks", None)
    if not isinstance(dtype, torch.dtype) or not _is_size(size) or not isinstance(chunks, list):
        raise InputError(f"{where} is damaged: {name[:100]!r} has no shape, dtype or parts")
    for chunk in chunks:
        offsets: Any = getattr(chunk, "offsets", None)
        sizes: Any = getattr(chunk, "sizes", None)
        if not isinstance(chunk, ChunkStorageMetadata) or not (_is_size(offsets) and _is_size(sizes)):
            raise InputError(f"{where} is damaged: a part of {name[:100]!r} has no place")
        if not len(offsets) == len(sizes) == len(size):
            raise InputError(f"{where} is damaged: a part of {name[:100]!r} has other axes than the whole")
    if math.prod(size) * dtype.itemsize > length:
        raise InputError(f"{where} is damaged: {name[:100]!r} of shape {list(size)} is larger than what is stored")


def _is_size(values: Any) -> bool:
    if not isinstance(values, Iterable):
        return False
    numbers = list(values)
    return len(numbers) <= MOST_AXES and all(type(number) is int and 0 <= number < 2**62 for number in numbers)


def check_size(index: Metadata, name: str, folder: Path) -> None:
    """InputError where a tensor is told to have more bytes than its files, before memory is taken for it."""
    files = {i.relative_path: i.length for key, i in index.storage_data.items() if key.fqn == name}
    for file, length in files.items():
        path = folder / file
        if path.is_file() and length > path.stat().st_size:
            raise InputError(f"{folder}: {name} cannot be read ({file} has {path.stat().st_size} bytes, not {length})")
