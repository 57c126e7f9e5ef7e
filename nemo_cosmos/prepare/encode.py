"""Tokenize a dataset offline: clips and captions into shards of latents and text embeddings.

Each rank takes every n-th clip and writes its own shards; nothing but counts is exchanged. Clips are encoded one at a
time, so a sample's bytes depend neither on its neighbours nor on the number of ranks.
"""

from __future__ import annotations

import contextlib
import datetime
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from nemo_cosmos.atomic import holds_files, write_json
from nemo_cosmos.data.clips import Clip
from nemo_cosmos.data.manifest import (
    MANIFEST_NAME,
    Manifest,
    completed_shards,
    merge_manifest,
    read_json,
    remove_unfinished,
)
from nemo_cosmos.data.resize import kept_share
from nemo_cosmos.data.sample import LatentSample
from nemo_cosmos.data.shards import SAMPLES_PER_SHARD, ShardWriter, disk_error
from nemo_cosmos.data.windows import Tokenizer, Window, WindowPlan, check_finite, check_plan, encode_window
from nemo_cosmos.errors import InputError
from nemo_cosmos.lock import lock_folder
from nemo_cosmos.models.text import TextEncoder
from nemo_cosmos.prepare.changes import Changes, drop_changed, find_changes
from nemo_cosmos.prepare.decode import ClipDecoder, Failure, decode_ahead

LITTLE = 0.6
"""Share of a picture below which cutting it to size is worth a word; 16:9 cut to a square keeps 0.56."""
SETTINGS_NAME = "prepare.json"
LATENT_DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}


CAMERAS = ("rig", "captions")
"""Options of sources with several cameras that the manifest names as well: generation calls the views by them."""


@dataclass(frozen=True)
class Rank:
    """Place of this process in the job."""

    index: int = 0
    count: int = 1


@dataclass
class Progress:
    """How far this rank is: clips through of ``total``, samples written, their pixel frames, things left out, time,
    and the samples that show less than :data:`LITTLE` of their source."""

    clips: int = 0
    total: int = 0
    samples: int = 0
    frames: int = 0
    skipped: int = 0
    seconds: float = 0.0
    cropped: int = 0

    @property
    def clips_per_second(self) -> float:
        return self.clips / self.seconds if self.seconds else 0.0

    @property
    def frames_per_second(self) -> float:
        return self.frames / self.seconds if self.seconds else 0.0


@dataclass
class PrepareResult:
    """What a call did: the folder, counts over all ranks, and the manifest of all that is there now."""

    path: Path
    written: int
    frames: int
    already_done: int
    seconds: float
    manifest: Manifest
    skipped: list[Failure] = field(default_factory=list)
    changes: Changes = field(default_factory=Changes)
    cropped: int = 0
    """Samples written of which less than :data:`LITTLE` of the source was kept."""

    @property
    def samples(self) -> int:
        """How many samples the folder holds now."""
        return self.manifest.samples


def prepare(
    clips: list[Clip],
    out: str | Path,
    *,
    tokenizer: Tokenizer,
    plan: WindowPlan,
    text_encoder: Callable[[], TextEncoder] | None,
    text_encoder_name: str,
    latent_dtype: str = "bfloat16",
    samples_per_shard: int = SAMPLES_PER_SHARD,
    workers: int = 0,
    device: torch.device | str = "cpu",
    options: Mapping[str, Any] | None = None,
    keep_removed: bool = False,
    left_out: Sequence[Failure] = (),
    on_progress: Callable[[Progress], None] = lambda progress: None,
) -> PrepareResult:
    """Encode clips into shards under ``out``; goes on where an earlier call stopped.

    Samples of clips that changed since they were made are made again, those of clips that are gone are dropped, all
    others stay. A clip that does not decode or is too short is left out and counted. All ranks of a ``torchrun`` job
    call this with the same arguments and get the same result.

    Args:
        clips: the dataset, as ``find_clips`` lists it.
        out: folder of the shards.
        tokenizer: makes the latents.
        plan: which frames of a clip, at which size or, by its shape, sizes.
        text_encoder: loads the encoder for captions, called when one has to be encoded; None: every clip brings its
            embedding.
        text_encoder_name: recorded in the shards.
        latent_dtype: storage type of latents.
        samples_per_shard: see ``ShardWriter``.
        workers: decoding processes.
        device: where the tokenizer runs.
        options: what else shapes the samples, by the names of the command's options; None values are left out.
        keep_removed: samples of clips that are gone stay.
        left_out: clips that are not among ``clips``, recorded with those that turn out to be unusable.
        on_progress: called after every sample and every clip of this rank.

    Raises:
        InputError: frame count or size do not fit the tokenizer, ``out`` holds something else, was made with other
            options or is being prepared by another process, no clip was usable, or the folder cannot be written.
    """
    check_plan(plan, tokenizer)
    if latent_dtype not in LATENT_DTYPES:
        raise InputError(f"latent dtype {latent_dtype!r}: expected one of {', '.join(LATENT_DTYPES)}")
    if samples_per_shard < 1 or workers < 0:
        raise InputError(
            f"samples_per_shard={samples_per_shard}, workers={workers}: expected at least 1 and at least 0"
        )
    out, rank = Path(out), current_rank()
    settings = {**plan.settings(), "latent_dtype": latent_dtype}
    given = {name: value for name, value in (options or {}).items() if value is not None}
    record = {
        **settings,
        **given,
        "tokenizer": tokenizer.identity.to_json(),
        "text_encoder": text_encoder_name,
    }
    with _writing(out, record, rank) as existed:
        changes = _open_out(out, record, clips, rank, keep_removed)
        done = frozenset(key for index in completed_shards(out) for key in index.keys)
        _barrier(rank)  # nobody writes before everybody has seen what is there
        todo = clips if plan.stride else [clip for clip in clips if clip.key not in done]
        decoder = ClipDecoder(
            todo[rank.index :: rank.count],
            plan,
            tokenizer.identity.spatial_compression,
            done,
            {**record, "tokenizer": str(tokenizer.identity)},
        )
        progress, skipped = Progress(total=len(decoder.clips)), []
        encode_text = _text_embedder(text_encoder)
        began = time.monotonic()
        with ShardWriter(
            out,
            tokenizer=tokenizer.identity,
            text_encoder=text_encoder_name,
            samples_per_shard=samples_per_shard,
            rank=rank.index,
            write_manifest=False,
        ) as writer:
            for item in decode_ahead(decoder, workers):
                sample = _encode(item, tokenizer, encode_text, device) if isinstance(item, Window) else item
                if isinstance(sample, LatentSample):
                    sample.latent = sample.latent.to(LATENT_DTYPES[latent_dtype])
                    writer.write(sample)
                    progress.samples += 1
                    progress.frames += sample.num_frames * sample.num_views
                    height, width, *shown = sample.image_size
                    progress.cropped += kept_share((shown[0], shown[1]), (height, width), plan.fit) < LITTLE
                elif isinstance(sample, Failure):
                    skipped.append(sample)
                progress.clips += not isinstance(item, Window)
                progress.skipped = len(skipped)
                progress.seconds = time.monotonic() - began
                on_progress(progress)
        everyone = gather(rank, (progress, skipped))
        skipped = [*left_out, *(failure for _, failures in everyone for failure in failures)]
        if rank.index == 0:
            if not completed_shards(out):
                if not existed:
                    (out / SETTINGS_NAME).unlink()
                reasons = "; ".join(failure.reason for failure in skipped[:3])
                raise InputError(f"none of {len(clips)} clips could be prepared: {reasons}")
            settings |= {name: given[name] for name in CAMERAS if name in given}
            merge_manifest(out, settings=settings, skipped=[asdict(failure) for failure in skipped])
        _barrier(rank)
        manifest = Manifest.load(out)
    return PrepareResult(
        path=out,
        written=sum(p.samples for p, _ in everyone),
        frames=sum(p.frames for p, _ in everyone),
        already_done=len(done),
        seconds=max(p.seconds for p, _ in everyone),
        manifest=manifest,
        skipped=skipped,
        changes=changes,
        cropped=sum(p.cropped for p, _ in everyone),
    )


@contextlib.contextmanager
def _writing(out: Path, record: dict[str, Any], rank: Rank) -> Iterator[bool]:
    """The folder as this job's alone; a first call that fails leaves nothing of it behind.

    Gives whether the folder had been prepared into before.

    Raises:
        InputError: the folder holds something else, is being prepared by another process, or cannot be written.
    """
    try:
        existed = _check_out(out, record)
        _barrier(rank)  # the first rank writes there only after everybody has looked
        if rank.index:
            yield existed
            return
        out.mkdir(parents=True, exist_ok=True)
        try:
            with lock_folder(out):
                _check_out(out, record)  # what another process has done since
                try:
                    yield existed
                except InputError:
                    # Other ranks may still be writing, which need the record to go on another time.
                    if rank.count == 1 and not existed and not completed_shards(out):
                        (out / SETTINGS_NAME).unlink(missing_ok=True)
                    raise
        except InputError:
            if not existed:
                with contextlib.suppress(OSError):  # something is in it
                    out.rmdir()
            raise
    except OSError as error:
        raise disk_error(error, out) from error


def _encode(
    window: Window, tokenizer: Tokenizer, encode_text: Callable[[str], Tensor], device: torch.device | str
) -> LatentSample | Failure:
    sample = encode_window(window, tokenizer, encode_text, device)
    try:
        check_finite(sample)
    except InputError as error:
        return Failure(window.name, str(error))
    return sample


def _text_embedder(load: Callable[[], TextEncoder] | None) -> Callable[[str], Tensor]:
    """Caption -> (tokens, width); loads the encoder at the first caption and remembers the latest ones."""
    encoders: list[TextEncoder] = []

    @lru_cache(maxsize=16)
    def embed(caption: str) -> Tensor:
        assert load is not None, "clips without embedding need a text encoder"
        if not encoders:
            encoders.append(load())
        return encoders[0].encode_trimmed([caption])[0]

    return embed


def _check_out(out: Path, record: dict[str, Any]) -> bool:
    """Whether ``out`` has been prepared into before; InputError when it holds something else.

    An option of which nothing is known on one side is not compared.
    """
    file = out / SETTINGS_NAME
    if file.is_file():
        found = read_json(file)
        differing = [
            f"{name}={_shown(found[name])}, now it is {_shown(value)}"
            for name, value in record.items()
            if name in found and found[name] != value
        ]
        if differing:
            raise InputError(
                f"{out} was prepared with {'; '.join(differing)}: repeat the options, name another folder or delete "
                "this one"
            )
        return True
    if out.exists() and (not out.is_dir() or holds_files(out)):
        what = "shards" if (out / MANIFEST_NAME).is_file() else "other files"
        raise InputError(f"{out} exists and holds {what} that prepare did not make: name a new folder")
    return False


def _shown(value: Any) -> str:
    """A recorded option for people; tokenizers by name and digest."""
    if isinstance(value, dict) and "sha256" in value:
        return f"{value.get('name')} ({value['sha256'][:12]})"
    return str(value)


def _open_out(out: Path, record: dict[str, Any], clips: list[Clip], rank: Rank, keep_removed: bool) -> Changes:
    """Make the folder ready: what an interrupted call left and what no longer stands for its clip is taken out.

    Every rank gets what has changed.
    """
    changes = Changes()
    if rank.index == 0:
        remove_unfinished(out)
        changes = find_changes(completed_shards(out), clips, keep_removed=keep_removed)
        changes.refuse_another_dataset(out)
        file = out / SETTINGS_NAME
        write_json(file, {**(read_json(file) if file.is_file() else {}), **record})
        drop_changed(out, changes)
    return gather(rank, changes)[0]


def current_rank() -> Rank:
    """Place of this process among those that joined."""
    return Rank(dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else Rank()


def _barrier(rank: Rank) -> None:
    if rank.count > 1:
        dist.barrier()


def gather(rank: Rank, value: Any) -> list[Any]:
    """Every rank's value, in their order, on all of them."""
    if rank.count == 1:
        return [value]
    values: list[Any] = [None] * rank.count
    dist.all_gather_object(values, value)
    return values


def join_ranks() -> Rank:
    """Join the ranks that torchrun started; a rank waits for the slowest as long as that takes."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and not dist.is_initialized():
        # Processes meet through the CPU: they exchange counts, and a GPU collective would time out on uneven work.
        dist.init_process_group("gloo", timeout=datetime.timedelta(days=30))
    return current_rank()
