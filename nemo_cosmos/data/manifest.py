"""What a folder of shards holds: ``manifest.json`` and one ``*.index.json`` per shard.

The index makes samples addressable by (shard, offset); it is written after its shard, and the manifest after every
index, so a file that is present describes something complete.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from nemo_cosmos.atomic import write_json
from nemo_cosmos.data.sample import Origin, TokenizerIdentity
from nemo_cosmos.errors import InputError, require_file
from nemo_cosmos.typed import LARGEST_INDEX, from_json, parse_json, plain_name, read_object

MANIFEST_NAME = "manifest.json"
INDEX_SUFFIX = ".index.json"
FORMAT_NAME = "nemo_cosmos.latent_shards"
FORMAT_VERSION = 1
_DISTINCT = ("latent_shapes", "latent_dtypes", "text_widths", "num_frames", "image_sizes")
"""What a manifest says of all shards and an index of one."""
_ORIGIN = {field.name for field in fields(Origin)} - {"options"}
"""Keys of a sample's origin in an index."""
RATE_TOLERANCE = 0.002
"""Share by which frame rates may differ and count as one."""


@dataclass
class ShardIndex:
    """Where each sample of one shard lies.

    ``tensors`` and ``records`` hold per sample (offset, bytes, crc32) of the safetensors and of the JSON member's
    content within the tar file. ``latent_shapes``, ``latent_dtypes``, ``text_widths``, ``num_frames``,
    ``image_sizes`` and ``fps`` are the distinct values found in the shard, sorted. ``origins`` holds per sample what
    it was made from (``Origin.to_index``). ``shapes`` holds per sample the place of its latent's shape in
    ``latent_shapes``, where there are several. Shards of before have no ``fps``, ``origins`` and ``shapes``.
    ``view_ids`` holds the distinct lists of view ids, an empty one for samples of one view; ``rigs`` per sample the
    place of its list, where there are several. Where no sample has several views both are empty.
    """

    shard: str
    bytes: int
    sha256: str
    tokenizer: dict[str, Any]
    text_encoder: str
    keys: list[str] = field(default_factory=list)
    tensors: list[list[int]] = field(default_factory=list)
    records: list[list[int]] = field(default_factory=list)
    latent_shapes: list[list[int]] = field(default_factory=list)
    latent_dtypes: list[str] = field(default_factory=list)
    text_widths: list[int] = field(default_factory=list)
    num_frames: list[int] = field(default_factory=list)
    image_sizes: list[list[int]] = field(default_factory=list)
    fps: list[float] = field(default_factory=list)
    origins: list[dict[str, Any] | None] = field(default_factory=list)
    shapes: list[int] = field(default_factory=list)
    view_ids: list[list[int]] = field(default_factory=list)
    rigs: list[int] = field(default_factory=list)

    @property
    def samples(self) -> int:
        return len(self.keys)


@dataclass
class ShardInfo:
    """One line of the manifest: a shard, its size, checksum and number of samples, and the checksum of its index."""

    file: str
    bytes: int
    sha256: str
    samples: int
    index_sha256: str

    @property
    def index_file(self) -> str:
        return index_name(self.file)

    def read_index(self, path: str | Path) -> ShardIndex:
        """The index, which is in ``path``; InputError where it is missing, damaged, or not what this line says."""
        index = read_index(Path(path) / self.index_file, self.index_sha256)
        if (index.shard, index.samples) != (self.file, self.samples):
            raise InputError(
                f"{Path(path) / self.index_file} lists {index.samples} samples of {index.shard}, {MANIFEST_NAME} "
                f"counts {self.samples} of {self.file}: one of them is damaged; run `nemo-cosmos prepare` again"
            )
        return index


@dataclass
class Manifest:
    """Contents of ``manifest.json``.

    Attributes:
        samples: number of samples over all shards.
        tokenizer: tokenizer that made the latents.
        text_encoder: name of the text encoder that made the embeddings.
        latent_shapes: distinct (C, T, h, w) shapes.
        latent_dtypes: distinct storage types, as safetensors names them.
        text_widths: distinct widths of text embeddings.
        num_frames: distinct pixel frame counts.
        image_sizes: distinct (height, width) in pixels as encoded.
        shards: the shard files in name order.
        settings: how the shards were made, as ``prepare`` recorded it.
        skipped: clips that were left out, each with the reason.
        fps: distinct frame rates; empty where some shard does not record them.
        view_ids: distinct lists of view ids, an empty one for samples of one view; empty where all are of one view.
    """

    samples: int
    tokenizer: TokenizerIdentity
    text_encoder: str
    latent_shapes: list[list[int]]
    latent_dtypes: list[str]
    text_widths: list[int]
    num_frames: list[int]
    image_sizes: list[list[int]]
    shards: list[ShardInfo]
    settings: dict[str, Any] = field(default_factory=dict)
    skipped: list[dict[str, str]] = field(default_factory=list)
    fps: list[float] = field(default_factory=list)
    view_ids: list[list[int]] = field(default_factory=list)

    @property
    def latent_shape(self) -> tuple[int, ...]:
        """The one latent shape (C, T, h, w); InputError when the shards hold several."""
        return tuple(_single(self.latent_shapes, "latent shape"))

    @property
    def text_width(self) -> int:
        """The one text embedding width; InputError when the shards hold several."""
        return int(_single(self.text_widths, "text embedding width"))

    @property
    def one_fps(self) -> float | None:
        """The frame rate of all samples, None where they differ or do not record theirs; see ``one_rate``."""
        return one_rate(self.fps)

    def require_tokenizer(self, expected: TokenizerIdentity, path: str | Path = "") -> None:
        """InputError when the latents were made by another tokenizer than ``expected``."""
        require_tokenizer(self.tokenizer, expected, path)

    def require_indices(self, indices: Sequence[ShardIndex], path: str | Path) -> None:
        """InputError unless the manifest says what the indices of its shards say, each under its own checksum.

        Args:
            indices: in the order of ``shards``; of their samples only the number is looked at.
            path: the folder, for the message.
        """
        first = indices[0]
        found: dict[str, Any] = {name: _distinct(indices, name) for name in _DISTINCT}
        if self.fps:  # Empty, too, where the shards are of before this was recorded.
            found["fps"] = _distinct(indices, "fps")
        found["view_ids"] = _view_ids(indices)
        found["tokenizer"] = TokenizerIdentity.from_json(first.tokenizer)
        found["text_encoder"] = first.text_encoder
        found["shards"] = [
            replace(shard, bytes=index.bytes, sha256=index.sha256)
            for shard, index in zip(self.shards, indices, strict=True)
        ]
        for name, value in found.items():
            if getattr(self, name) != value:
                raise InputError(
                    f"{Path(path) / MANIFEST_NAME}: {name} is not what the indices of its shards say: the file is "
                    "damaged; run `nemo-cosmos prepare` again"
                )

    @classmethod
    def load(cls, path: str | Path) -> Manifest:
        """Read ``path/manifest.json``; InputError when it is missing, damaged or of another version."""
        file = Path(path) / MANIFEST_NAME
        if not Path(path).is_dir():
            raise InputError(f"no folder {path}: expected a folder of shards made by `nemo-cosmos prepare`")
        if not file.is_file():
            raise InputError(
                f"{file} is missing: the folder holds no shards or `nemo-cosmos prepare` was stopped; run it again, "
                "it goes on where it was"
            )
        values = read_json(file)
        if values.get("format") != FORMAT_NAME or values.get("version") != FORMAT_VERSION:
            raise InputError(
                f"{file}: format {values.get('format')!r} version {values.get('version')!r}; "
                f"expected {FORMAT_NAME!r} version {FORMAT_VERSION}"
            )
        values = {k: v for k, v in values.items() if k not in ("format", "version")}
        try:
            manifest = from_json(cls, values, str(file))
            for shard in manifest.shards:
                plain_name(shard.file, str(file))
            if (counted := sum(shard.samples for shard in manifest.shards)) != manifest.samples:
                raise InputError(f"{file}: samples is {manifest.samples}, its shards have {counted} together")
        except InputError as error:
            raise InputError(f"{error}: the file is damaged; run `nemo-cosmos prepare` again") from error
        return manifest

    def save(self, path: str | Path) -> None:
        """Write ``path/manifest.json`` through a temporary name."""
        write_json(Path(path) / MANIFEST_NAME, {"format": FORMAT_NAME, "version": FORMAT_VERSION, **asdict(self)})


def require_tokenizer(found: TokenizerIdentity, expected: TokenizerIdentity, path: str | Path) -> None:
    """InputError when the latents under a path were made by another tokenizer than ``expected``."""
    if found != expected:
        raise InputError(
            f"shards {path} were made with tokenizer {found}, but the experiment names {expected}; "
            "run `nemo-cosmos prepare` again with that tokenizer, or name the one that made the shards"
        )


def one_rate(rates: Sequence[float]) -> float | None:
    """The rate that all of some rates stand for: the middle one where they agree but for the rounding of time stamps
    or the factor 1000/1001; None where they differ or there are none."""
    if not rates or max(rates) > min(rates) * (1 + RATE_TOLERANCE):
        return None
    return sorted(rates)[len(rates) // 2]


def index_name(shard: str) -> str:
    """``shard-0000-000000.tar`` -> ``shard-0000-000000.index.json``."""
    return shard.removesuffix(".tar") + INDEX_SUFFIX


def read_index(path: str | Path, sha256: str | None = None) -> ShardIndex:
    """Read one shard's index; InputError when it is missing, damaged, or its checksum is not ``sha256``."""
    path = Path(path)
    if not path.exists():
        raise InputError(f"{path} is missing; run `nemo-cosmos prepare` again")
    require_file(path)
    content = path.read_bytes()
    if sha256 is not None and hashlib.sha256(content).hexdigest() != sha256:
        raise InputError(f"checksum of {path} differs from the manifest's; run `nemo-cosmos prepare` again")
    try:
        index = from_json(ShardIndex, parse_json(content), str(path))
        _check_places(index, str(path))
        return index
    except ValueError as error:
        raise InputError(f"{path} is damaged ({error}); delete it and its shard, then prepare again") from error


def _check_places(index: ShardIndex, where: str) -> None:
    """InputError unless there is one place within the shard for each part of every sample."""
    plain_name(index.shard, where)
    if not len(index.keys) == len(index.tensors) == len(index.records):
        raise InputError(f"{where}: keys, tensors and records differ in number")
    if index.origins and len(index.origins) != len(index.keys):
        raise InputError(f"{where}: keys and origins differ in number")
    if index.shapes and (len(index.shapes), True) != (len(index.keys), max(index.shapes) < len(index.latent_shapes)):
        raise InputError(f"{where}: shapes: expected the place in latent_shapes of every sample's")
    several = len(index.view_ids) > 1
    if len(index.rigs) != several * len(index.keys) or not set(index.rigs) <= set(range(len(index.view_ids))):
        raise InputError(f"{where}: rigs: expected the place in view_ids of every sample's, where there are several")
    for origin in index.origins:
        if origin is not None and origin.keys() != _ORIGIN:
            raise InputError(f"{where}: origins: expected {', '.join(sorted(_ORIGIN))}")
    places = [*index.tensors, *index.records]
    if not set(map(len, places)) <= {3}:
        raise InputError(f"{where}: expected offset, bytes and checksum of every sample")
    if any(offset + size > index.bytes for offset, size, _ in places):
        raise InputError(f"{where}: a sample lies beyond the end of its shard")


def completed_shards(path: str | Path) -> list[ShardIndex]:
    """Indices of all shards under ``path`` that were finished, in name order.

    A shard without index, or whose size is not the recorded one, was not finished and is not listed.
    """
    found = []
    for file in sorted(Path(path).glob(f"*{INDEX_SUFFIX}")):
        index = read_index(file)
        shard = Path(path) / index.shard
        if shard.is_file() and shard.stat().st_size == index.bytes:
            found.append(index)
    return found


def remove_unfinished(path: str | Path) -> list[str]:
    """Delete what a stopped writer left: temporary files, shards without a matching index, indices without their
    shard.

    Returns the names of the deleted files. No writer may be at work in the folder.
    """
    path = Path(path)
    finished = {name for index in completed_shards(path) for name in (index.shard, index_name(index.shard))}
    leftovers = [f for pattern in ("shard-*.tar", f"shard-*{INDEX_SUFFIX}") for f in path.glob(pattern)]
    doomed = [f for f in leftovers if f.name not in finished] + list(path.glob(".*.tmp"))
    for file in doomed:
        file.unlink(missing_ok=True)
    return sorted(f.name for f in doomed)


def merge_manifest(
    path: str | Path,
    *,
    settings: dict[str, Any] | None = None,
    skipped: list[dict[str, str]] | None = None,
) -> Manifest:
    """Write the manifest over all finished shards, whichever rank wrote them.

    Raises:
        InputError: there is no shard, shards were made with different tokenizers or text encoders, or a key occurs
            twice.
    """
    indices = completed_shards(path)
    if not indices:
        raise InputError(f"{path} holds no finished shard")
    first = indices[0]
    for index in indices[1:]:
        if (index.tokenizer, index.text_encoder) != (first.tokenizer, first.text_encoder):
            raise InputError(
                f"{Path(path) / index.shard} was made with another tokenizer or text encoder than {first.shard}"
            )
    counts = Counter(key for index in indices for key in index.keys)
    duplicates = [key for key, count in counts.items() if count > 1]
    if duplicates:
        raise InputError(f"{len(duplicates)} sample keys occur twice in {path}, for example {duplicates[:5]}")
    manifest = Manifest(
        samples=len(counts),
        tokenizer=TokenizerIdentity.from_json(first.tokenizer),
        text_encoder=first.text_encoder,
        **{name: _distinct(indices, name) for name in _DISTINCT},
        shards=[_shard_info(Path(path), index) for index in indices],
        settings=settings or {},
        skipped=sorted(skipped or [], key=lambda entry: sorted(entry.items())),
        fps=_distinct(indices, "fps") if all(index.fps for index in indices) else [],
        view_ids=_view_ids(indices),
    )
    manifest.save(path)
    return manifest


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object; InputError names the file when it is none."""
    return read_object(path, LARGEST_INDEX)


def _shard_info(path: Path, index: ShardIndex) -> ShardInfo:
    digest = hashlib.sha256((path / index_name(index.shard)).read_bytes()).hexdigest()
    return ShardInfo(index.shard, index.bytes, index.sha256, index.samples, digest)


def _distinct(indices: Sequence[ShardIndex], name: str) -> list[Any]:
    values: list[Any] = []
    for index in indices:
        values.extend(value for value in getattr(index, name) if value not in values)
    return sorted(values)


def _view_ids(indices: Sequence[ShardIndex]) -> list[list[int]]:
    """The distinct lists of view ids, sorted; empty where all samples are of one view."""
    rigs = sorted({tuple(rig) for index in indices for rig in index.view_ids or [[]]})
    return [] if rigs == [()] else [list(rig) for rig in rigs]


def _single(values: list[Any], what: str) -> Any:
    if len(values) != 1:
        raise InputError(f"the shards hold {len(values)} different values of {what}: {values[:5]}; expected one")
    return values[0]
