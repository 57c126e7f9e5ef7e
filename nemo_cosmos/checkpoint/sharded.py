"""A checkpoint that every rank writes and reads its own part of; nothing is gathered.

On disk it is PyTorch's distributed checkpoint with the file names of Megatron-Core. A tensor of the network stands in
its index as one whole tensor made of boxes, whatever layout wrote it, so any layout reads it. A rank holds of a tensor
its tensor-parallel shard, or, of optimizer states, a flat range of that shard; a flat range is written as the few
boxes that it consists of. Tensors pass through host memory one at a time.
"""

from __future__ import annotations

import itertools
import math
import traceback
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.distributed.checkpoint import (
    CheckpointException,
    DefaultSavePlanner,
    FileSystemWriter,
    LoadPlan,
    LoadPlanner,
    ReadItem,
    SavePlan,
    SavePlanner,
    WriteItem,
)
from torch.distributed.checkpoint.metadata import (
    ChunkStorageMetadata,
    Metadata,
    MetadataIndex,
    TensorProperties,
    TensorStorageMetadata,
)
from torch.distributed.checkpoint.planner import TensorWriteData, WriteItemType
from torch.distributed.checkpoint.planner_helpers import create_read_items_for_chunk_list
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save
from torch.distributed.checkpoint.storage import WriteResult
from torch.futures import Future

from nemo_cosmos.checkpoint.index import check_size
from nemo_cosmos.checkpoint.store import CheckpointReader, HashingFileSystem, write_format
from nemo_cosmos.checksums import MANIFEST, Checksum, write_manifest
from nemo_cosmos.errors import InputError

_THREADS = 4
"""Files that a rank writes at a time: one copies from the GPU while another waits for the disk."""
_FILE_BYTES = 1 << 30
"""Where a rank begins its next file. PyTorch keeps copies of all tensors of a file until it is written."""


@dataclass(frozen=True)
class TensorPart:
    """The elements of one whole tensor that this rank writes or reads.

    Attributes:
        key: the whole tensor's name in the checkpoint.
        data: the elements ``start : start + data.numel()`` of this rank's shard in row-major order; any shape.
        global_shape: of the whole tensor.
        offset: where this rank's shard begins in the whole tensor.
        shape: of this rank's shard.
    """

    key: str
    data: Tensor
    global_shape: tuple[int, ...]
    offset: tuple[int, ...]
    shape: tuple[int, ...]
    start: int = 0

    def boxes(self) -> Iterator[tuple[ChunkStorageMetadata, Tensor]]:
        """Boxes of the whole tensor with their elements, views of ``data``."""
        flat, at = self.data.detach().view(-1), 0
        for offsets, sizes in boxes(self.shape, self.start, self.start + flat.numel()):
            length = math.prod(sizes)
            where = torch.Size(a + b for a, b in zip(self.offset, offsets, strict=True))
            yield ChunkStorageMetadata(where, torch.Size(sizes)), flat[at : at + length].view(sizes)
            at += length


def boxes(shape: tuple[int, ...], start: int, stop: int) -> Iterator[tuple[tuple[int, ...], tuple[int, ...]]]:
    """(offsets, sizes) of the fewest boxes that hold elements ``start:stop`` of a row-major tensor, in their order."""
    if start >= stop:
        return
    if not shape:
        yield (), ()
        return
    row = math.prod(shape[1:])
    (first, skip), (last, rest) = divmod(start, row), divmod(stop, row)
    if first == last:
        yield from (((first, *o), (1, *s)) for o, s in boxes(shape[1:], skip, rest))
        return
    if skip:
        yield from (((first, *o), (1, *s)) for o, s in boxes(shape[1:], skip, row))
        first += 1
    if first < last:
        yield (first, *itertools.repeat(0, len(shape) - 1)), (last - first, *shape[1:])
    if rest:
        yield from (((last, *o), (1, *s)) for o, s in boxes(shape[1:], 0, rest))


def save_parts(folder: Path, parts: Iterable[TensorPart], common: Mapping[str, Any]) -> None:
    """Write a checkpoint with its manifest of checksums; collective over all ranks.

    Args:
        folder: empty or absent.
        parts: this rank's; together with those of the other ranks they hold every element exactly once.
        common: plain values and small tensors that rank 0 writes beside them.

    Raises:
        CheckpointException: on every rank, when one of them could not write.
    """
    writer = _Writer(folder)
    save({}, storage_writer=writer, planner=_SavePlanner(parts))
    written: list[dict[str, Checksum]] = [{}] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(written, writer.fs.checksums)
    failed: list[Exception | None] = [None]
    if torch.distributed.get_rank() == 0:
        try:
            own = write_format(folder, common)
            write_manifest(folder / MANIFEST, {**own, **{name: of for rank in written for name, of in rank.items()}})
        except (OSError, RuntimeError) as error:
            failed = [error]
    torch.distributed.broadcast_object_list(failed, src=0)
    if failed[0] is not None:
        stack = traceback.extract_tb(failed[0].__traceback__)
        raise CheckpointException("the first rank could not write", {0: (failed[0], stack)}) from failed[0]


def load_parts(reader: CheckpointReader, parts: Iterable[TensorPart]) -> None:
    """Fill ``data`` of this rank's parts; collective over all ranks.

    Raises:
        InputError: on every rank, when something is missing, has another shape or cannot be read.
    """
    try:
        load({}, storage_reader=reader, planner=_LoadPlanner(parts))
    except CheckpointException as error:
        reason = next(iter(error.failures.values()))[0]
        if isinstance(reason, InputError):
            raise InputError(f"{reader.folder}: {reason}") from error
        raise InputError(f"{reader.folder}: cannot be read ({type(reason).__name__}: {reason})") from error


def whole_tensor(reader: CheckpointReader, key: str, stored: TensorStorageMetadata) -> Tensor:
    """One tensor, put together by this process alone.

    Raises:
        InputError: its file is missing or broken.
    """
    check_size(reader.index, key, reader.folder)
    tensor = torch.empty(stored.size, dtype=stored.properties.dtype)
    shape = tuple(stored.size)
    planner = _LoadPlanner([TensorPart(key, tensor, shape, (0,) * len(shape), shape)])
    planner.set_up_planner({}, reader.index)
    reader.set_up_storage_reader(reader.index, True)
    try:
        reader.read_data(planner.create_local_plan(), planner).wait()
    except Exception as error:  # whatever a broken file makes of its reader
        raise InputError(f"{reader.folder}: {key} cannot be read ({type(error).__name__}: {error})") from error
    return tensor


class _Writer(FileSystemWriter):
    """PyTorch's writer with several files a rank, written side by side, and none that holds much of the state."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, single_file_per_rank=True, per_thread_copy_ahead=0)
        self.fs: HashingFileSystem = HashingFileSystem()

    def write_data(self, plan: SavePlan, planner: SavePlanner) -> Future[list[WriteResult]]:
        def write(numbered: tuple[int, list[WriteItem]]) -> list[WriteResult]:
            number, items = numbered
            prefix = replace(plan.storage_data, prefix=f"{plan.storage_data.prefix}{number}_")
            part = replace(plan, items=items, storage_data=prefix)
            return super(_Writer, self).write_data(part, planner).wait()

        out: Future[list[WriteResult]] = Future()
        with ThreadPoolExecutor(_THREADS) as pool:
            out.set_result([result for part in pool.map(write, enumerate(_files(plan.items))) for result in part])
        return out


def _files(items: list[WriteItem]) -> Iterator[list[WriteItem]]:
    """Items in order, cut where a file is full."""
    file: list[WriteItem] = []
    size = 0
    for item in items:
        assert item.tensor_data is not None
        file.append(item)
        size += math.prod(item.tensor_data.chunk.sizes) * item.tensor_data.properties.dtype.itemsize
        if size >= _FILE_BYTES:
            yield file
            file, size = [], 0
    if file:
        yield file


class _SavePlanner(DefaultSavePlanner):
    """Writes boxes instead of the tensors of a state dict."""

    def __init__(self, parts: Iterable[TensorPart]) -> None:
        super().__init__(flatten_state_dict=False, flatten_sharded_tensors=False)
        self._items: list[WriteItem] = []
        self._data: dict[tuple[str, torch.Size], Tensor] = {}
        for part in parts:
            properties = TensorProperties.create_from_tensor(part.data.detach())
            for chunk, data in part.boxes():
                self._data[part.key, chunk.offsets] = data
                written = TensorWriteData(chunk, properties, torch.Size(part.global_shape))
                index = MetadataIndex(part.key, chunk.offsets)
                self._items.append(WriteItem(index, WriteItemType.SHARD, tensor_data=written))

    def create_local_plan(self) -> SavePlan:
        self.plan = SavePlan(self._items)
        return self.plan

    def lookup_object(self, index: MetadataIndex) -> Tensor:
        assert index.offset is not None
        return self._data[index.fqn, index.offset]


class _LoadPlanner(LoadPlanner):
    """Reads boxes into the memory of their parts."""

    def __init__(self, parts: Iterable[TensorPart]) -> None:
        self.parts: dict[str, list[TensorPart]] = {}
        for part in parts:
            self.parts.setdefault(part.key, []).append(part)
        self._targets: dict[str, list[Tensor]] = {}

    def set_up_planner(self, state_dict: Any, metadata: Metadata | None = None, is_coordinator: bool = False) -> None:
        assert metadata is not None
        self.metadata = metadata

    def create_local_plan(self) -> LoadPlan:
        items: list[ReadItem] = []
        for key, parts in self.parts.items():
            stored = self.metadata.state_dict_metadata.get(key)
            if not isinstance(stored, TensorStorageMetadata):
                raise InputError(f"{key} is missing; the save belongs to another network or to other settings")
            for part in parts:
                if tuple(stored.size) != part.global_shape:
                    raise InputError(
                        f"{key} has shape {list(stored.size)}, the network has {list(part.global_shape)}; "
                        "keep the model settings of the run, or choose another output_dir"
                    )
            wanted = [box for part in parts for box in part.boxes()]
            self._targets[key] = [data for _, data in wanted]
            items += create_read_items_for_chunk_list(key, stored, [chunk for chunk, _ in wanted])
        return LoadPlan(items)

    def create_global_plan(self, global_plan: list[LoadPlan]) -> list[LoadPlan]:
        return global_plan

    def finish_plan(self, central_plan: LoadPlan) -> LoadPlan:
        return central_plan

    def load_bytes(self, read_item: ReadItem, value: Any) -> None:
        raise AssertionError(f"{read_item.storage_index.fqn} is no tensor")

    def resolve_tensor(self, read_item: ReadItem) -> Tensor:
        number = read_item.dest_index.index
        assert number is not None
        target = self._targets[read_item.dest_index.fqn][number]
        for dim, (offset, length) in enumerate(zip(read_item.dest_offsets, read_item.lengths, strict=True)):
            target = target.narrow(dim, offset, length)
        return target

    def commit_tensor(self, read_item: ReadItem, tensor: Tensor) -> None:
        pass
