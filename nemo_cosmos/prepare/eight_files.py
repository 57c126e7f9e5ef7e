"""Scenes into folders of eight files per sample, the form in which the camera-control tools of Cosmos keep them.

A sample is written below ``.parts`` first and gets its number when all are done, so that numbers follow the order of
scenes and chunks whatever the ranks and interruptions, and have no holes where a scene cannot be used.
``samples.json`` records which number a chunk has; it keeps that for good.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nemo_cosmos.atomic import finished_folder, write_json
from nemo_cosmos.camera.rays import plucker
from nemo_cosmos.data.eight_files import (
    GIVEN_LATENT,
    INFO,
    LATENT,
    MASK,
    PARTS,
    RAYS,
    SETTINGS_NAME,
    SIZE,
    TEXT,
    TEXT_MASK,
    part_file,
)
from nemo_cosmos.data.embeddings import caption_digest
from nemo_cosmos.data.scene_windows import SceneClip, SceneWindow, video_size
from nemo_cosmos.data.shards import disk_error
from nemo_cosmos.data.windows import Tokenizer, WindowPlan, check_plan, normalise
from nemo_cosmos.errors import InputError
from nemo_cosmos.models.text import TEXT_LENGTH, TextEncoder
from nemo_cosmos.prepare.decode import ClipDecoder, Failure, decode_ahead
from nemo_cosmos.prepare.encode import Progress, barrier, current_rank, gather, text_embedder, writing
from nemo_cosmos.typed import read_object

PARTS_FOLDER = ".parts"
NUMBERS = "samples.json"
REPORT = "skipped.json"
ENTRY = "entry.json"
GIVEN_FRAMES = 9
"""Pixel frames of which the second latent is made; grey follows them."""
CHANNELS = "direction, moment"
"""Of the rays, as ``N.info.json`` has it."""


@dataclass
class FolderResult:
    """What a call did: over all ranks, and what the folder holds now."""

    path: Path
    samples: int
    written: int
    already_done: int
    seconds: float
    skipped: list[Failure] = field(default_factory=list)


def prepare_eight_files(
    clips: Sequence[SceneClip],
    out: str | Path,
    *,
    tokenizer: Tokenizer,
    plan: WindowPlan,
    text_encoder: Callable[[], TextEncoder],
    text_encoder_name: str,
    workers: int = 0,
    device: torch.device | str = "cpu",
    options: Mapping[str, Any] | None = None,
    on_progress: Callable[[Progress], None] = lambda progress: None,
) -> FolderResult:
    """Encode chunks of scenes into eight files each; goes on where an earlier call stopped.

    A chunk whose scene or caption changed since is made again under its number. All ranks of a ``torchrun`` job call
    this with the same arguments and get the same result.

    Args:
        clips: the chunks, sorted by scene and chunk.
        out: the folder.
        tokenizer: makes the latents.
        plan: which frames at which size.
        text_encoder: loads the encoder for captions, called when one has to be encoded.
        text_encoder_name: recorded in the folder.
        workers: decoding processes of this rank.
        device: where the tokenizer runs.
        options: what else shapes the samples.
        on_progress: called after every chunk of this rank.

    Raises:
        InputError: the plan does not fit the tokenizer, the folder holds something else or cannot be written, or no
            chunk can be used.
    """
    check_plan(plan, tokenizer)
    out, rank = Path(out), current_rank()
    record = {
        **plan.settings(),
        **(options or {}),
        "tokenizer": tokenizer.identity.to_json(),
        "text_encoder": text_encoder_name,
    }
    with writing(out, record, rank) as existed:
        if rank.index == 0:
            write_json(out / SETTINGS_NAME, record)
            _publish(out, clips)
        barrier(rank)
        numbers = read_numbers(out)
        barrier(rank)
        mine = list(clips[rank.index :: rank.count])
        origins = {clip.key: _origin(clip) for clip in mine}
        todo = [clip for clip in mine if not _is_done(out, clip, origins[clip.key], numbers)]
        progress, skipped = _encode_all(
            todo, out, origins, plan, tokenizer, text_embedder(text_encoder), workers, device, on_progress
        )
        everyone = gather(rank, (progress, skipped, len(mine) - len(todo)))
        failures = list(dict.fromkeys(failure for _, found, _ in everyone for failure in found))
        if rank.index == 0:
            _publish(out, clips)
            write_json(out / REPORT, [asdict(failure) for failure in failures])
            if not read_numbers(out):
                if not existed:
                    for name in (SETTINGS_NAME, REPORT):
                        (out / name).unlink(missing_ok=True)
                reasons = "; ".join(failure.reason for failure in failures[:3])
                raise InputError(f"none of {len(clips)} chunks of scenes could be prepared: {reasons}")
        barrier(rank)
    return FolderResult(
        path=out,
        samples=len(read_numbers(out)),
        written=sum(found.samples for found, _, _ in everyone),
        already_done=sum(done for _, _, done in everyone),
        seconds=max(found.seconds for found, _, _ in everyone),
        skipped=failures,
    )


def read_numbers(out: Path) -> dict[str, dict[str, Any]]:
    """By ``SCENE/CHUNK``: its number and what it was made from."""
    return read_object(out / NUMBERS) if (out / NUMBERS).is_file() else {}


def _encode_all(
    clips: list[SceneClip],
    out: Path,
    origins: Mapping[str, str],
    plan: WindowPlan,
    tokenizer: Tokenizer,
    embed: Callable[[str], Tensor],
    workers: int,
    device: torch.device | str,
    on_progress: Callable[[Progress], None],
) -> tuple[Progress, list[Failure]]:
    """Encode while the workers decode; every sample is on the disk before the next one is taken."""
    by_key = {clip.key: clip for clip in clips}
    progress, skipped = Progress(total=len(clips)), []
    began = time.monotonic()
    decoder = ClipDecoder(list(clips), plan, tokenizer.identity.spatial_compression, frozenset())
    for item in decode_ahead(decoder, workers):
        if isinstance(item, SceneWindow):
            clip = by_key[item.key]
            sample = encode_parts(item, tokenizer, embed, device)
            if not bool(torch.isfinite(sample[LATENT]).all()):
                skipped.append(Failure(clip.name, f"{item.name}: its latent has numbers that are not finite"))
                continue
            try:
                _write_parts(out, clip, item, sample, origins[clip.key])
            except OSError as error:
                raise disk_error(error, out) from error
            progress.samples += 1
            progress.frames += plan.frames
        elif isinstance(item, Failure):
            skipped.append(item)
        progress.clips += not isinstance(item, SceneWindow)
        progress.skipped, progress.seconds = len(skipped), time.monotonic() - began
        on_progress(progress)
    return progress, skipped


def encode_parts(
    window: SceneWindow, tokenizer: Tokenizer, embed: Callable[[str], Tensor], device: torch.device | str
) -> dict[str, Tensor]:
    """The tensors of a sample by the names of their files."""
    assert window.cameras is not None
    video = normalise(window.frames, device)
    latent = tokenizer.encode(video)[0].cpu()
    video[:, :, GIVEN_FRAMES:] = 0
    given = tokenizer.encode(video)[0].cpu()
    rows, columns = latent.shape[2:]
    mask = torch.zeros(1, rows, columns) if window.padding_mask is None else window.padding_mask.float()
    cell = tokenizer.identity.spatial_compression
    rays = plucker(window.cameras, (rows, columns), cell, padding_mask=mask, scale=1.0)
    text = embed(window.caption)
    padded = torch.zeros(TEXT_LENGTH, text.shape[1], dtype=torch.bfloat16)
    padded[: len(text)] = text.to(torch.bfloat16)
    return {
        LATENT: latent.to(torch.bfloat16),
        GIVEN_LATENT: given.to(torch.bfloat16),
        RAYS: rays.transpose(0, 1).contiguous(),
        MASK: mask.to(torch.bfloat16),
        SIZE: torch.tensor([[*window.frames.shape[2:], *window.resized]], dtype=torch.float16),
        TEXT: padded,
        TEXT_MASK: torch.ones(TEXT_LENGTH, dtype=torch.bfloat16),
    }


def describe(window: SceneWindow, clip: SceneClip) -> dict[str, Any]:
    """``N.info.json``: what the known tools read, and after it what else is known."""
    assert window.cameras is not None
    height, width = video_size(window.source_size)
    return {
        "height": height,
        "width": width,
        "fps": window.fps,
        "num_frames": window.frames.shape[1],
        "video_path": f"{clip.scene.name}.mp4",
        "caption": window.caption,
        "start_frame": window.start,
        "scene": clip.scene.name,
        "chunk": clip.chunk,
        "source_height": window.source_size[0],
        "source_width": window.source_size[1],
        "plucker_channels": CHANNELS,
        "translation_scale": window.scale,
    }


def _write_parts(out: Path, clip: SceneClip, window: SceneWindow, sample: Mapping[str, Tensor], origin: str) -> None:
    with finished_folder(out / PARTS_FOLDER / clip.key) as folder:
        for part, tensor in sample.items():
            torch.save(tensor, folder / part)
        write_json(folder / INFO, describe(window, clip))
        write_json(folder / ENTRY, {"origin": origin})


def _origin(clip: SceneClip) -> str:
    """What a sample is made from, as a digest; empty where the scene cannot be read, which decoding reports."""
    try:
        parts = (clip.digest(), caption_digest(clip.read_caption()))
    except (InputError, OSError):
        return ""
    return hashlib.sha256(" ".join(parts).encode()).hexdigest()


def _is_done(out: Path, clip: SceneClip, origin: str, numbers: Mapping[str, Mapping[str, Any]]) -> bool:
    """Whether the sample is there, under its number or, of a stopped call, without one."""
    waiting = out / PARTS_FOLDER / clip.key / ENTRY
    if waiting.is_file():
        return bool(read_object(waiting).get("origin") == origin)
    entry = numbers.get(_entry_name(clip))
    return (
        entry is not None
        and entry["origin"] == origin
        and all(part_file(out, entry["number"], part).is_file() for part in PARTS)
    )


def _entry_name(clip: SceneClip) -> str:
    return f"{clip.scene.name}/{clip.chunk}"


def _publish(out: Path, clips: Sequence[SceneClip]) -> None:
    """Give the finished samples their numbers, in the order of the chunks; those of known chunks keep theirs.

    The numbers are recorded before the files move, so that an interrupted call is finished by the next one.
    """
    folder = out / PARTS_FOLDER
    waiting = [clip for clip in clips if (folder / clip.key / ENTRY).is_file()]
    numbers = read_numbers(out)
    for clip in waiting:
        entry = numbers.setdefault(_entry_name(clip), {"number": len(numbers)})
        entry["origin"] = read_object(folder / clip.key / ENTRY)["origin"]
    if waiting:
        write_json(out / NUMBERS, numbers)
    for clip in waiting:
        number = numbers[_entry_name(clip)]["number"]
        for part in PARTS:
            if (folder / clip.key / part).exists():
                os.replace(folder / clip.key / part, part_file(out, number, part))
        shutil.rmtree(folder / clip.key)
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()
