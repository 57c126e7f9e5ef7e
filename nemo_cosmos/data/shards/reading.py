"""Reads shards: random access to their samples, whose checksums are compared."""

from __future__ import annotations

import contextlib
import gc
import hashlib
import os
import zlib
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
import torch

from nemo_cosmos.choices import TemporalMapping, Verify
from nemo_cosmos.data.manifest import Manifest, ShardIndex
from nemo_cosmos.data.positions import Bucket, LatentShape
from nemo_cosmos.data.sample import LatentSample
from nemo_cosmos.data.shards.form import decode_sample, with_rays
from nemo_cosmos.errors import InputError
from nemo_cosmos.typed import parse_json

FULL_VERIFY_BYTES = 1 << 30
"""``verify="auto"`` hashes every shard when together they are no larger than this; 1 GiB takes about a second."""
OPEN_FILES = 64
_DIGEST_LINES = 10_000


class ShardDataset(torch.utils.data.Dataset[LatentSample]):
    """Random access to the samples of a folder of shards, in key order whatever the grouping into shards.

    Files are opened on first use in each process, so the dataset can be handed to DataLoader workers.

    Args:
        path: folder with ``manifest.json``.
        verify: ``full`` hashes every shard now; ``size`` compares sizes; ``auto`` hashes when the shards together are
            at most 1 GiB and compares sizes otherwise. A sample's CRC-32 is checked on every read in all modes.
        rays: samples with cameras get the rays that the network takes: those of which pixel frames a latent frame is
            given. None leaves samples as they are stored.

    Attributes:
        buckets: the samples by the shape of their latents.

    Raises:
        InputError: manifest or index missing or damaged, or a shard that is missing or differs (the message names it).
    """

    def __init__(self, path: str | Path, *, verify: Verify = "auto", rays: TemporalMapping | None = None) -> None:
        if verify not in ("auto", "full", "size"):
            raise InputError(f"verify={verify!r}: expected auto, full or size")
        self.path, self.rays = Path(path), rays
        self.manifest = Manifest.load(self.path)
        total = sum(shard.bytes for shard in self.manifest.shards)
        hash_all = verify == "full" or (verify == "auto" and total <= FULL_VERIFY_BYTES)
        keys: list[str] = []
        rows: list[np.ndarray] = []
        heads: list[ShardIndex] = []
        shapes: list[np.ndarray] = []
        rigs: list[np.ndarray] = []
        with _garbage_left_alone():
            for number, shard in enumerate(self.manifest.shards):
                verify_shard(self.path, shard.file, shard.bytes, shard.sha256 if hash_all else None)
                index = shard.read_index(self.path)
                keys.extend(index.keys)
                heads.append(replace(index, keys=[], tensors=[], records=[], origins=[], shapes=[], rigs=[]))
                shapes.append(np.asarray(index.shapes, np.int32))
                rigs.append(np.asarray(index.rigs, np.int32))
                shard_number = np.full((index.samples, 1), number)
                rows.append(np.hstack([shard_number, _places(index.tensors), _places(index.records)]))
        self.manifest.require_indices(heads, self.path)
        order = sorted(range(len(keys)), key=keys.__getitem__)
        self.keys = [keys[i] for i in order]
        # One int64 row a sample (shard, then offset, bytes, crc32 of both members): 56 bytes instead of Python
        # objects. No tensor: reading processes would share it through /dev/shm, which is small in containers.
        self._rows = np.concatenate([np.empty((0, 7), np.int64), *rows])[order]
        self._files: OrderedDict[int, BinaryIO] = OrderedDict()
        self.buckets = self._find_buckets(heads, shapes, rigs, order)

    def _find_buckets(
        self, heads: list[ShardIndex], shapes: list[np.ndarray], rigs: list[np.ndarray], order: list[int]
    ) -> list[Bucket]:
        """The samples by the shape of their latents and their number of views, both sorted."""
        known = [cast(LatentShape, tuple(shape)) for shape in self.manifest.latent_shapes]
        views = [tuple(rig) for rig in self.manifest.view_ids] or [()]
        if odd := [shape for shape in known if len(shape) != 4 or min(shape) < 1]:
            raise InputError(f"{self.path}: {odd[0]} is no shape of a latent: the indices are damaged; prepare again")
        if len(known) == len(views) == 1:
            return [Bucket(known[0], range(len(order)), tuple(filter(None, views)))]
        shape_of = self._places(heads, shapes, "latent_shapes", known)[order]
        rig_of = self._places(heads, rigs, "view_ids", views)[order]
        counts = np.asarray([len(rig) for rig in views])
        buckets = []
        for place, shape in enumerate(known):
            for count in sorted(set(counts.tolist())):
                numbers = np.flatnonzero((shape_of == place) & (counts[rig_of] == count))
                found = [views[rig] for rig in np.unique(rig_of[numbers])]
                buckets.append(Bucket(shape, numbers, tuple(filter(None, found))))
        return [bucket for bucket in buckets if len(bucket.samples)]

    def _places(
        self, heads: list[ShardIndex], numbers: list[np.ndarray], name: str, known: Sequence[tuple[int, ...]]
    ) -> np.ndarray:
        """The place in ``known`` of every sample's value, shard by shard; ``numbers`` are places in each index."""
        found = [np.empty(0, np.int32)]
        for shard, head, own in zip(self.manifest.shards, heads, numbers, strict=True):
            values = getattr(head, name) or [[]]
            if len(values) != 1 and len(own) != shard.samples:
                raise InputError(
                    f"{self.path / shard.index_file} does not say which sample has which of {len(values)} "
                    f"{name}: delete it and its shard, then run `nemo-cosmos prepare` again"
                )
            places = np.asarray([known.index(tuple(value)) for value in values], np.int32)
            found.append(places[own] if len(own) else np.full(shard.samples, places[0]))
        return np.concatenate(found)

    def __len__(self) -> int:
        return len(self.keys)

    def __getitem__(self, index: int) -> LatentSample:
        if not 0 <= index < len(self):
            raise IndexError(f"sample {index} of {len(self)}")
        shard, *members = self._rows[index].tolist()
        tensors = self._read(index, shard, members[:3])
        record = self._read(index, shard, members[3:])
        file = self.path / self.manifest.shards[shard].file
        where = f"sample {self.keys[index]!r} in shard {file}"
        sample = decode_sample(tensors, record, where)
        return sample if self.rays is None else with_rays(sample, self.rays, where)

    def tensor_names(self, index: int) -> set[str]:
        """Which tensors a sample holds; they are not read, nor is their checksum compared."""
        shard, offset, size = self._rows[index, :3].tolist()
        file = self._file(shard).fileno()
        length = int.from_bytes(os.pread(file, 8, offset), "little")
        try:
            if not 0 < length <= size - 8:
                raise ValueError(f"a header of {length} bytes in {size}")
            return set(parse_json(os.pread(file, length, offset + 8).decode())) - {"__metadata__"}
        except (ValueError, TypeError) as error:
            where = f"sample {self.keys[index]!r} in shard {self.path / self.manifest.shards[shard].file}"
            raise InputError(f"{where} is malformed: {error}; run `nemo-cosmos prepare` again") from error

    @property
    def digest(self) -> str:
        """SHA-256 over keys, sizes and checksums of all samples: the same for every grouping into shards."""
        digest = hashlib.sha256()
        for first in range(0, len(self), _DIGEST_LINES):
            part = slice(first, first + _DIGEST_LINES)
            members = self._rows[part][:, [2, 3, 5, 6]]
            lines = [f"{key} {row}" for key, row in zip(self.keys[part], members.tolist(), strict=True)]
            digest.update(("\n" * bool(first) + "\n".join(lines)).encode())
        return digest.hexdigest()

    def _read(self, index: int, shard: int, member: list[int]) -> bytes:
        file = self.path / self.manifest.shards[shard].file
        return read_member(self._file(shard).fileno(), member, self.keys[index], file)

    def _file(self, shard: int) -> BinaryIO:
        # pread has no shared position, so processes forked after opening may share the descriptor.
        file = self._files.pop(shard, None)
        if file is None:
            if len(self._files) >= OPEN_FILES:
                self._files.popitem(last=False)[1].close()
            file = open(self.path / self.manifest.shards[shard].file, "rb", buffering=0)  # noqa: SIM115
        self._files[shard] = file
        return file

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_files": OrderedDict()}


@contextlib.contextmanager
def _garbage_left_alone() -> Iterator[None]:
    """No collection of cycles: an index is many small lists, among which each collection would search in vain, and
    which takes half of the time."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _places(members: list[list[int]]) -> np.ndarray:
    """(n, 3) of offset, bytes and checksum."""
    return np.asarray(members, np.int64).reshape(-1, 3)


def read_member(file: int, member: list[int], key: str, shard: Path) -> bytes:
    """Content at (offset, bytes, crc32) of an open file; InputError naming sample and shard when it is damaged."""
    offset, size, crc = member
    content = os.pread(file, size, offset)
    if len(content) != size or zlib.crc32(content) != crc:
        raise InputError(
            f"checksum of sample {key!r} in shard {shard} differs: the file is damaged; delete it and its index, then "
            "run `nemo-cosmos prepare` again"
        )
    return content


def verify_shard(path: Path, file: str, size: int, sha256: str | None) -> None:
    """Compare a shard's size, and its SHA-256 when given; InputError names the shard."""
    shard = path / file
    if not shard.is_file():
        raise InputError(f"shard {shard} is missing; run `nemo-cosmos prepare` again")
    if shard.stat().st_size != size:
        raise InputError(
            f"shard {shard} has {shard.stat().st_size} bytes, the manifest says {size}: copy it again or delete it "
            "and run `nemo-cosmos prepare` again"
        )
    if sha256 is None:
        return
    digest = hashlib.sha256()
    with shard.open("rb") as stream:
        while block := stream.read(1 << 22):
            digest.update(block)
    if digest.hexdigest() != sha256:
        raise InputError(
            f"checksum of shard {shard} differs from the manifest's: the file is damaged; copy it again or delete it "
            "and its index, then run `nemo-cosmos prepare` again"
        )
