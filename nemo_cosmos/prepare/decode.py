"""Decode clips in worker processes, a few ahead of the tokenizer."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from nemo_cosmos.data.resize import Fit, padding_mask
from nemo_cosmos.data.video import iter_windows, probe, read_frames
from nemo_cosmos.errors import InputError
from nemo_cosmos.prepare.sources import Clip
from nemo_cosmos.prepare.text_embeddings import read_embedding

PREFETCH = 2
"""Windows that each worker decodes ahead; bounds memory whatever the size of the dataset."""
SHARED_MEMORY = Path("/dev/shm")


@dataclass(frozen=True)
class WindowPlan:
    """Which frames of a clip become a sample.

    Attributes:
        frames: pixel frames of a sample.
        size: (height, width) to scale to.
        fit: how a source of another shape fills ``size`` (see ``data.resize``).
        step: distance between the frames taken.
        stride: distance between the first frames of the windows of a clip; 0 takes the first window alone.
        fps: constant rate to resample to; None keeps each clip's own rate.
    """

    frames: int
    size: tuple[int, int]
    fit: Fit = "crop"
    step: int = 1
    stride: int = 0
    fps: float | None = None

    def key(self, clip: Clip, start: int) -> str:
        """Sample key of a window."""
        return clip.key if self.stride == 0 else f"{clip.key}-f{start:06d}"


@dataclass
class Window:
    """Decoded frames with all that the sample records about them.

    Attributes:
        key: sample key.
        name: clip and first frame, for people.
        frames: (3, T, H, W) uint8.
        fps: frame rate of ``frames``.
        source_size: (height, width) of the file.
        padding_mask: (1, H / compression, W / compression) uint8 or None.
        caption: text of the clip.
        embedding: (tokens, width) when the source has it ready.
    """

    key: str
    name: str
    frames: Tensor
    fps: float
    source_size: tuple[int, int]
    padding_mask: Tensor | None
    caption: str
    embedding: Tensor | None


@dataclass
class Failure:
    """A clip that could not be used, and why."""

    clip: str
    reason: str


@dataclass
class ClipEnd:
    """All windows of a clip have been handed out."""


Item = Window | Failure | ClipEnd


class ClipDecoder(IterableDataset):  # type: ignore[type-arg]
    """Windows of a list of clips, then for each a ``ClipEnd`` or a ``Failure``.

    DataLoader workers share the list clip by clip.

    Args:
        clips: what to decode.
        plan: which frames.
        compression: pixels per latent cell, for padding masks.
        done: sample keys to leave out.
    """

    def __init__(self, clips: list[Clip], plan: WindowPlan, compression: int, done: frozenset[str]) -> None:
        self.clips, self.plan, self.compression, self.done = clips, plan, compression, done

    def __iter__(self) -> Iterator[Item]:
        worker = get_worker_info()
        first, every = (0, 1) if worker is None else (worker.id, worker.num_workers)
        for clip in self.clips[first::every]:
            try:
                yield from self._windows(clip)
                yield ClipEnd()
            except InputError as error:
                yield Failure(clip.name, str(error))

    def _windows(self, clip: Clip) -> Iterator[Window]:
        plan = self.plan
        caption = clip.read_caption()
        embedding = None if clip.embedding_file is None else read_embedding(clip.embedding_file)
        info = probe(clip.video)
        # Frame numbers of a variable-rate file are no measure of time; its mean rate is, once frames are evenly
        # spaced.
        fps = plan.fps or (info.fps if info.variable_rate else None)
        mask = padding_mask((info.height, info.width), plan.size, plan.fit, self.compression)
        if plan.stride == 0:
            frames = read_frames(clip.video, 0, plan.frames, plan.size, fit=plan.fit, step=plan.step, fps=fps)
            windows = iter([(0, frames)])
        else:
            windows = iter_windows(
                clip.video, plan.frames, stride=plan.stride, size=plan.size, fit=plan.fit, step=plan.step, fps=fps
            )
        for start, frames in windows:
            if plan.key(clip, start) not in self.done:
                yield Window(
                    key=plan.key(clip, start),
                    name=clip.name if start == 0 else f"{clip.name} from frame {start}",
                    frames=frames,
                    fps=(fps or info.fps) / plan.step,
                    source_size=(info.height, info.width),
                    padding_mask=mask,
                    caption=caption,
                    embedding=embedding,
                )


def decode_ahead(decoder: ClipDecoder, workers: int) -> Iterator[Item]:
    """Run a decoder in ``workers`` processes, or in this one when 0.

    Raises:
        InputError: shared memory is too small for the windows held there.
    """
    if workers < 0:
        raise InputError(f"workers={workers}: expected 0 or more")
    workers = min(workers, len(decoder.clips))
    if workers:
        _check_shared_memory(decoder.plan, workers)
    loader = DataLoader(decoder, batch_size=None, num_workers=workers, prefetch_factor=PREFETCH if workers else None)
    yield from loader


def default_workers() -> int:
    """Decoding processes per rank: the machine's cores shared by the ranks on it, one left for the rank, at most 8."""
    cores = len(os.sched_getaffinity(0)) // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    return max(1, min(8, cores - 1))


def _check_shared_memory(plan: WindowPlan, workers: int) -> None:
    """Containers often have 64 MB of shared memory; a worker would die there without a word on the cause."""
    if not SHARED_MEMORY.is_dir():
        return
    window = 3 * plan.frames * plan.size[0] * plan.size[1]
    needed, free = window * (workers * PREFETCH + 1), shutil.disk_usage(SHARED_MEMORY).free
    if needed > free:
        raise InputError(
            f"{workers} decoding processes need {needed >> 20} MiB of shared memory, {SHARED_MEMORY} has "
            f"{free >> 20} MiB free: give fewer --workers (0 decodes in the main process), or start the container "
            "with --ipc=host or --shm-size"
        )


def normalise(frames: Tensor, device: torch.device | str) -> Tensor:
    """uint8 (3, T, H, W) -> float32 (1, 3, T, H, W) in [-1, 1]."""
    return frames.to(device).unsqueeze(0).float() / 127.5 - 1.0
