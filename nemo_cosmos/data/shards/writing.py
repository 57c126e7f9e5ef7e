"""Writes shards: a temporary tar file and its growing index, which appear under their names when they are complete."""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import tarfile
import tempfile
import zlib
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

from nemo_cosmos.atomic import put_file, write_json
from nemo_cosmos.data.manifest import ShardIndex, index_name, merge_manifest
from nemo_cosmos.data.sample import LatentSample, TokenizerIdentity
from nemo_cosmos.data.shards.form import KEY, encode_sample
from nemo_cosmos.errors import InputError, explain_os_error
from nemo_cosmos.interrupts import Interrupted, unbroken

SAMPLES_PER_SHARD = 64
RATE_DIGITS = 3
"""Decimals to which frame rates are told apart."""


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
        if not KEY.fullmatch(sample.key):
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


def disk_error(error: OSError, path: Path) -> Exception:
    """InputError, with what to do, where the file system refused to write to a folder; any other error as it is."""
    message = explain_os_error(error, path)
    return error if message is None else InputError(message)
