"""Shards of training records: WebDataset tar files with an index for random access.

A sample with key K is two members of a tar file: ``K.safetensors`` (latent, text and the optional tensors) and
``K.json`` (caption, frame rate, sizes). There is no pickle. Bytes depend on the samples alone: members carry no time
stamp or owner.
"""

from __future__ import annotations

import contextlib
import gc
import hashlib
import io
import json
import os
import re
import tarfile
import tempfile
import zlib
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, cast

import numpy as np
import safetensors.torch
import torch
from torch import Tensor

from nemo_cosmos.atomic import put_file, write_json
from nemo_cosmos.camera.stored import stored_rays
from nemo_cosmos.choices import TemporalMapping, Verify
from nemo_cosmos.data.manifest import (
    Manifest,
    ShardIndex,
    index_name,
    merge_manifest,
)
from nemo_cosmos.data.network_inputs import SAMPLE_RULES
from nemo_cosmos.data.positions import Bucket, LatentShape
from nemo_cosmos.data.sample import LatentSample, Origin, TokenizerIdentity
from nemo_cosmos.errors import InputError, explain_os_error
from nemo_cosmos.interrupts import Interrupted, unbroken
from nemo_cosmos.typed import from_json, parse_json

SAMPLES_PER_SHARD = 64
FULL_VERIFY_BYTES = 1 << 30
"""``verify="auto"`` hashes every shard when together they are no larger than this; 1 GiB takes about a second."""
OPEN_FILES = 64
_DIGEST_LINES = 10_000
RATE_DIGITS = 3
"""Decimals to which frame rates are told apart."""
TENSOR_NAMES = ("latent", "text", *SAMPLE_RULES)
_KEY = re.compile(r"[A-Za-z0-9_-]{1,90}")  # 90 + ".safetensors" fits the 100 bytes of a ustar name


def safe_key(name: str) -> str:
    """Turn any file stem into a valid sample key; two different stems give two different keys.

    WebDataset ends a key at the first dot and tar names are 100 bytes of ASCII, so other characters become ``_`` and a
    digest of the name is appended.
    """
    if _KEY.fullmatch(name):
        return name
    digest = hashlib.sha256(name.encode("utf-8", "surrogateescape")).hexdigest()[:10]
    return re.sub(r"[^A-Za-z0-9_-]+", "_", name)[:70] + "-" + digest


class _HashingFile(io.RawIOBase):
    """Write-only file that knows its position and the SHA-256 of what went through."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self._hash, self._position = file, hashlib.sha256(), 0

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self._file.write(data)
        self._hash.update(data)
        self._position += len(data)
        return len(data)

    def tell(self) -> int:
        return self._position

    def hexdigest(self) -> str:
        return self._hash.hexdigest()


class _OpenShard:
    """The shard being written: a temporary tar file and its growing index."""

    def __init__(self, path: Path, name: str, identity: TokenizerIdentity, text_encoder: str) -> None:
        self.path = path
        handle, self.temporary = tempfile.mkstemp(dir=path, prefix=f".{name}.", suffix=".tmp")
        self._raw = os.fdopen(handle, "wb", buffering=1 << 20)
        self._stream = _HashingFile(self._raw)
        self._tar = tarfile.open(fileobj=self._stream, mode="w", format=tarfile.USTAR_FORMAT)  # noqa: SIM115
        self.index = ShardIndex(name, 0, "", identity.to_json(), text_encoder)
        self.keys: set[str] = set()

    def add(self, sample: LatentSample) -> None:
        tensors, record = encode_sample(sample)
        self.keys.add(sample.key)
        self.index.keys.append(sample.key)
        self.index.tensors.append(self._member(f"{sample.key}.safetensors", tensors))
        self.index.records.append(self._member(f"{sample.key}.json", record))
        self.index.origins.append(None if sample.origin is None else sample.origin.to_index())
        shape = list(sample.latent.shape)
        dtype = str(sample.latent.dtype).removeprefix("torch.")
        distinct: list[tuple[list[Any], Any]] = [
            (self.index.latent_shapes, shape),
            (self.index.latent_dtypes, dtype),
            (self.index.text_widths, sample.text.shape[-1]),
            (self.index.num_frames, sample.num_frames),
            (self.index.image_sizes, list(sample.image_size[:2])),
            (self.index.fps, round(sample.fps, RATE_DIGITS)),
        ]
        for values, value in distinct:
            if value not in values:
                values.append(value)
        self.index.shapes.append(self.index.latent_shapes.index(shape))
        rig: list[int] = [] if sample.view_ids is None else sample.view_ids.tolist()
        if rig not in self.index.view_ids:
            self.index.view_ids.append(rig)
        self.index.rigs.append(self.index.view_ids.index(rig))

    def _member(self, name: str, content: bytes) -> list[int]:
        info = tarfile.TarInfo(name)
        info.size, info.mtime, info.mode = len(content), 0, 0o644
        offset = self._stream.tell() + tarfile.BLOCKSIZE
        self._tar.addfile(info, io.BytesIO(content))
        return [offset, len(content), zlib.crc32(content)]

    def finish(self) -> None:
        self._tar.close()
        self._raw.flush()
        os.fsync(self._raw.fileno())
        self._raw.close()
        os.chmod(self.temporary, 0o644)
        self.index.bytes, self.index.sha256 = self._stream.tell(), self._stream.hexdigest()
        put_file(Path(self.temporary), self.path / self.index.shard)
        record = dict(vars(self.index))
        if len(self.index.latent_shapes) == 1:
            del record["shapes"]
        if len(self.index.view_ids) == 1:
            del record["rigs"]
        if self.index.view_ids == [[]]:
            del record["view_ids"]
        write_json(self.path / index_name(self.index.shard), record)

    def discard(self) -> None:
        Path(self.temporary).unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            self._raw.close()  # flushes what is buffered, which fails again on a full disk


class ShardWriter:
    """Write samples into shards ``shard-RRRR-NNNNNN.tar`` of rank RRRR.

    A shard appears under its name when it is complete; a stopped writer leaves no partial shard. A writer for a folder
    that already has shards of its rank goes on with the next number.

    Args:
        path: folder, made when missing.
        tokenizer: which tokenizer made the latents.
        text_encoder: name of the text encoder.
        samples_per_shard: samples after which the next shard begins.
        rank: number in the shard names; ranks of one job write side by side.
        write_manifest: write the manifest on a clean exit. With several ranks leave it off and call ``merge_manifest``
            once all are done.

    Raises:
        InputError: a key that is not made of letters, digits, ``-`` and ``_``; a latent that does not fit the
            tokenizer; view ids that are none; a full disk.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        tokenizer: TokenizerIdentity,
        text_encoder: str,
        samples_per_shard: int = SAMPLES_PER_SHARD,
        rank: int = 0,
        write_manifest: bool = True,
    ) -> None:
        if samples_per_shard < 1:
            raise InputError(f"samples_per_shard is {samples_per_shard}, expected at least 1")
        self.path = Path(path)
        self.path.mkdir(parents=True, exist_ok=True)
        self.tokenizer, self.text_encoder = tokenizer, text_encoder
        self.samples_per_shard, self.rank, self.write_manifest = samples_per_shard, rank, write_manifest
        numbers = [int(f.name.split("-")[2].split(".")[0]) for f in self.path.glob(f"shard-{rank:04d}-*.tar")]
        self._next = max(numbers, default=-1) + 1
        self._shard: _OpenShard | None = None

    def write(self, sample: LatentSample) -> None:
        """Append one sample; the shard is closed when it holds ``samples_per_shard``."""
        if not _KEY.fullmatch(sample.key):
            raise InputError(f"sample key {sample.key!r}: expected 1-90 letters, digits, '-' or '_' (see safe_key)")
        if sample.latent.ndim != 4 or sample.latent.shape[0] != self.tokenizer.latent_channels:
            raise InputError(
                f"latent of {sample.key!r} has shape {tuple(sample.latent.shape)}, expected (channels, frames, "
                f"height, width) with {self.tokenizer.latent_channels} channels for tokenizer {self.tokenizer}"
            )
        views = sample.view_ids
        if views is not None and (views.ndim != 1 or not len(views) or int(views.min()) < 0):
            raise InputError(f"view_ids of {sample.key!r} are {views.tolist()}, expected a list of ids from 0 on")
        try:
            with unbroken():
                self._add(sample)
        except OSError as error:
            self.discard()
            raise disk_error(error, self.path) from error

    def _add(self, sample: LatentSample) -> None:
        if self._shard is None:
            name = f"shard-{self.rank:04d}-{self._next:06d}.tar"
            self._shard = _OpenShard(self.path, name, self.tokenizer, self.text_encoder)
            self._next += 1
        if sample.key in self._shard.keys:
            raise InputError(f"sample key {sample.key!r} was written twice")
        self._shard.add(sample)
        if self._shard.index.samples >= self.samples_per_shard:
            self._finish_shard()

    def _finish_shard(self) -> None:
        if self._shard is not None:
            shard = self._shard
            shard.finish()
            self._shard = None

    def close(self) -> None:
        """Finish the last shard and, if asked for, write the manifest."""
        try:
            self._finish_shard()
            if self.write_manifest:
                merge_manifest(self.path)
        except OSError as error:
            self.discard()
            raise disk_error(error, self.path) from error

    def discard(self) -> None:
        """Drop the shard being written; finished shards stay."""
        if self._shard is not None:
            self._shard.discard()
            self._shard = None

    def __enter__(self) -> ShardWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        elif issubclass(kind, Interrupted):
            # The samples of the open shard are finished work.
            self._finish_shard()
        else:
            self.discard()


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


def encode_sample(sample: LatentSample) -> tuple[bytes, bytes]:
    """The two members of a sample: safetensors bytes and JSON bytes; equal samples give equal bytes."""
    tensors: dict[str, Tensor] = {}
    for name in TENSOR_NAMES:
        value = getattr(sample, name)
        if value is not None:
            tensors[name] = value.detach().cpu().contiguous()
    record = {
        "key": sample.key,
        "caption": sample.caption,
        "fps": float(sample.fps),
        "num_frames": int(sample.num_frames),
        "image_size": [int(v) for v in sample.image_size],
        "source": sample.source,
        **({} if sample.origin is None else {"origin": sample.origin.to_record()}),
        **{name: value for name in ("cameras", "captions") if (value := getattr(sample, name))},
    }
    content = json.dumps(record, ensure_ascii=False, sort_keys=True)
    # A lone surrogate (from an undecodable file name) is no UTF-8: JSON's own escape keeps it readable.
    encoded = content.encode("utf-8", "backslashreplace")
    return safetensors.torch.save(tensors), encoded


@dataclass
class _Record:
    """The JSON member of a sample, as ``encode_sample`` writes it."""

    key: str
    caption: str
    fps: float
    num_frames: int
    image_size: list[int]
    source: str
    origin: Origin | None = None
    cameras: list[str] = field(default_factory=list)
    captions: list[str] = field(default_factory=list)


def decode_sample(tensors: bytes, record: bytes, where: str = "the sample") -> LatentSample:
    """Inverse of ``encode_sample``.

    Raises:
        InputError: either member is not what ``encode_sample`` writes; ``where`` names the sample.
    """
    try:
        values = from_json(_Record, parse_json(record), "its record")
        if len(values.image_size) != 4:
            raise InputError("its record: image_size: expected four integers")
        parts = safetensors.torch.load(tensors)
        if not {"latent", "text"} <= set(parts) <= set(TENSOR_NAMES):
            raise InputError(f"expected the tensors latent and text, found {', '.join(sorted(parts)) or 'none'}")
        views = parts["view_ids"].shape if "view_ids" in parts else ()
        if parts["latent"].ndim != 4 or parts["text"].shape[:-2] != views:
            raise InputError("expected latent (C, T, h, w) and text (n, width), with view_ids (V,) text (V, n, width)")
    except (ValueError, KeyError, TypeError, MemoryError, safetensors.SafetensorError) as error:
        raise InputError(f"{where} is malformed: {error}; run `nemo-cosmos prepare` again") from error
    size = cast(tuple[int, int, int, int], tuple(values.image_size))
    fields: dict[str, Any] = {**vars(values), "image_size": size, **parts}
    return LatentSample(**fields)


def with_rays(sample: LatentSample, mapping: TemporalMapping, where: str = "the sample") -> LatentSample:
    """The sample with ``plucker`` made of its cameras, where it has these and no rays yet.

    Raises:
        InputError: its cameras are none, or do not fit its latent; ``where`` names the sample.
    """
    if sample.plucker is not None or sample.camera_poses is None or sample.camera_intrinsics is None:
        return sample
    height, width = sample.image_size[:2]
    _, *latent_size = sample.latent.shape
    grid = cast(tuple[int, int, int], tuple(latent_size))
    try:
        rays = stored_rays(
            sample.camera_poses, sample.camera_intrinsics, (height, width), grid, mapping, sample.padding_mask
        )
    except InputError as error:
        raise InputError(f"{where}: {error}; run `nemo-cosmos prepare` again") from error
    return replace(sample, plucker=rays)


def disk_error(error: OSError, path: Path) -> Exception:
    """InputError, with what to do, where the file system refused to write to a folder; any other error as it is."""
    message = explain_os_error(error, path)
    return error if message is None else InputError(message)
