"""What became of the clips since their samples were made: changed, removed, or as they were."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence, Set
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from nemo_cosmos.data.clips import Clip
from nemo_cosmos.data.embeddings import caption_digest, file_digest
from nemo_cosmos.data.manifest import MANIFEST_NAME, ShardIndex, completed_shards, index_name
from nemo_cosmos.data.sample import Origin, TokenizerIdentity
from nemo_cosmos.data.shards import ShardWriter, decode_sample, read_member
from nemo_cosmos.errors import InputError

SHOWN = 5
"""Clips that an error lists."""
Times = dict[str, Any]
"""Size and times of a file, by the names that ``Origin`` has for them."""


@dataclass
class Changes:
    """Clips whose samples no longer stand for them.

    Attributes:
        changed: name of each changed clip, with what changed.
        removed: names of clips that are gone from the dataset.
        unknown: samples of which nothing is recorded, made before it was.
        clips: keys of the clips whose samples have to go.
        recorded: clips that have samples, with a record of what they were made from.
        keep_removed: samples of clips that are gone stay.
    """

    changed: dict[str, str] = field(default_factory=dict)
    removed: list[str] = field(default_factory=list)
    unknown: int = 0
    clips: set[str] = field(default_factory=set)
    recorded: int = 0
    keep_removed: bool = False

    def refuse_another_dataset(self, out: Path) -> None:
        """InputError when all clips are to be dropped: a wrong folder is likelier than the wish to lose them."""
        if self.recorded and self.recorded == len(self.removed) == len(self.clips) and not self.unknown:
            names = ", ".join(self.removed[:SHOWN]) + (", ..." if len(self.removed) > SHOWN else "")
            raise InputError(
                f"{out} holds samples of {self.recorded} clips, none of which is in the dataset now ({names}): name "
                "another folder for another dataset, or give --keep-removed to keep them beside the new ones"
            )


def file_times(*paths: Path) -> Times:
    """What tells without reading them whether files may have changed; empty when one is not there.

    The second time changes with every write, whatever the first is set to. Of several files these are the bytes of
    all, and numbers that change with the time of any, or with their order.
    """
    try:
        stats = [path.stat() for path in paths]
    except (OSError, ValueError):
        return {}  # Reading says what is wrong.
    times = {name: [getattr(stat, f"st_{name}") for stat in stats] for name in ("mtime_ns", "ctime_ns")}
    marks = {name: of[0] if len(of) == 1 else _mark(of) for name, of in times.items()}
    return {"bytes": sum(stat.st_size for stat in stats), **marks}


def _mark(numbers: Sequence[int]) -> int:
    """One number for several, from 0 to 2^60 - 1."""
    return int(_joined(map(str, numbers))[:15], 16)


def _joined(digests: Iterable[str]) -> str:
    """One digest for several, in their order."""
    return hashlib.sha256("\n".join(digests).encode()).hexdigest()


def _files_digest(files: Sequence[Path]) -> str:
    digests = [file_digest(file) for file in files]
    return digests[0] if len(digests) == 1 else _joined(digests)


def _captions_digest(captions: Sequence[str]) -> str:
    digests = [caption_digest(caption) for caption in captions]
    return digests[0] if len(digests) == 1 else _joined(digests)


def origin_of(clip: Clip, captions: Sequence[str], times: Times) -> Origin:
    """What the samples of a clip are made from; each digest is over all its cameras."""
    return Origin(
        clip=clip.key,
        name=clip.name,
        sha256=_files_digest(clip.videos),
        caption_sha256=_captions_digest(captions),
        embedding_sha256=_files_digest(clip.embedding_files) if clip.embedding_files else None,
        **times,
    )


def find_changes(indices: Iterable[ShardIndex], clips: Sequence[Clip], *, keep_removed: bool = False) -> Changes:
    """Compare the samples with the clips that are there now.

    A video whose size and times are the recorded ones is not read.

    Args:
        indices: the finished shards.
        clips: the dataset, as ``find_clips`` lists it.
        keep_removed: samples of clips that are gone stay.
    """
    changes, now = Changes(keep_removed=keep_removed), {clip.key: clip for clip in clips}
    recorded: dict[str, dict[str, Any]] = {}
    for index in indices:
        for origin in index.origins or [None] * index.samples:
            if origin is None:
                changes.unknown += 1
            else:
                recorded[origin["clip"]] = origin
    changes.recorded = len(recorded)
    for key, origin in recorded.items():
        if key not in now:
            changes.removed.append(origin["name"])
            if not keep_removed:
                changes.clips.add(key)
        elif what := _difference(origin, now[key]):
            changes.changed[now[key].name] = what
            changes.clips.add(key)
    return changes


def drop_changed(out: Path, changes: Changes) -> None:
    """Take the samples of changed and removed clips out of their shards; those of the others stay as they are.

    Also finishes what an interrupted call of this function left: samples that a newer shard holds as well.
    """
    indices = completed_shards(out)
    newest = {key: index.shard for index in indices for key in index.keys}
    for index in indices:
        origins = index.origins or [None] * index.samples
        gone = {
            key
            for key, origin in zip(index.keys, origins, strict=True)
            if newest[key] != index.shard or (origin is not None and origin["clip"] in changes.clips)
        }
        if gone:
            # The manifest would speak of shards that are not there.
            (out / MANIFEST_NAME).unlink(missing_ok=True)
            _drop_samples(out, index, gone)


def _drop_samples(out: Path, index: ShardIndex, keys: Set[str]) -> None:
    """Write what remains of a shard as a new shard of the same rank, then delete the old one.

    Nothing is encoded: the other samples keep their bytes. A call that is interrupted leaves both shards.
    """
    kept = [row for row, key in enumerate(index.keys) if key not in keys]
    with (
        (out / index.shard).open("rb") as file,
        ShardWriter(
            out,
            tokenizer=TokenizerIdentity.from_json(index.tokenizer),
            text_encoder=index.text_encoder,
            samples_per_shard=max(1, len(kept)),
            rank=int(index.shard.split("-")[1]),
            write_manifest=False,
        ) as writer,
    ):
        for row in kept:
            read = partial(read_member, file.fileno(), key=index.keys[row], shard=out / index.shard)
            sample = decode_sample(read(index.tensors[row]), read(index.records[row]))
            origin = index.origins[row] if index.origins else None
            if sample.origin is not None and origin is not None:
                times: Times = {time: origin.get(time) for time in ("mtime_ns", "ctime_ns")}
                sample.origin = replace(sample.origin, **times)
            writer.write(sample)
    # The index first: a shard without one counts as unfinished.
    (out / index_name(index.shard)).unlink()
    (out / index.shard).unlink()


def _difference(origin: dict[str, Any], clip: Clip) -> str:
    """What is different about a clip, in words; empty when nothing is. A clip that cannot be read now counts as
    changed."""
    times, what = file_times(*clip.videos), "image" if clip.still else "video"
    if any(origin[name] != value for name, value in times.items()) or not times:
        if not times:
            return f"{what} missing"
        if origin["bytes"] != times["bytes"] or origin["sha256"] != _files_digest(clip.videos):
            return what
    try:
        caption = _captions_digest(clip.read_captions())
    except InputError:
        return "caption unreadable"
    if origin["caption_sha256"] != caption:
        return "caption"
    before, files = origin["embedding_sha256"], clip.embedding_files
    # One encoder gives one embedding, whether it was computed here or read from a file.
    return "text embedding" if before and files and before != _files_digest(files) else ""
