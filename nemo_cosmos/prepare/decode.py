"""Decode clips in worker processes, a few ahead of the tokenizer."""

from __future__ import annotations

import gc
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from nemo_cosmos.data.clips import Clip
from nemo_cosmos.data.sample import Origin
from nemo_cosmos.data.scene_windows import SceneClip, scene_windows
from nemo_cosmos.data.windows import Window, WindowPlan, windows_of
from nemo_cosmos.data.workers import end_with_this_process, usable_cores
from nemo_cosmos.errors import InputError
from nemo_cosmos.prepare.changes import file_times, origin_of

PREFETCH = 2
"""Windows that each worker decodes ahead; bounds memory whatever the size of the dataset."""
SHARED_MEMORY = Path("/dev/shm")


@dataclass(frozen=True)
class Failure:
    """A clip that could not be used, and why."""

    clip: str
    reason: str


@dataclass
class ClipEnd:
    """All windows of a clip have been handed out."""


Item = Window | Failure | ClipEnd


class ClipDecoder(IterableDataset):
    """Windows of a list of clips, then for each a ``ClipEnd`` or a ``Failure``.

    DataLoader workers share the list clip by clip.

    Args:
        clips: what to decode.
        plan: which frames.
        compression: pixels per latent cell, for padding masks.
        done: sample keys to leave out.
        options: what else shapes the samples, recorded with each.
    """

    def __init__(
        self,
        clips: list[Clip],
        plan: WindowPlan,
        compression: int,
        done: frozenset[str],
        options: dict[str, Any] | None = None,
    ) -> None:
        self.clips, self.plan, self.compression, self.done = clips, plan, compression, done
        self.options = options or {}

    def __iter__(self) -> Iterator[Item]:
        worker = get_worker_info()
        first, every = (0, 1) if worker is None else (worker.id, worker.num_workers)
        for clip in self.clips[first::every]:
            origin: Origin | None = None
            try:
                # Taken before the first frame: what changes while it is read counts as changed the next time.
                times = file_times(*clip.videos)
                for window in self._windows(clip):
                    captions = [text.caption for text in window.views] or [window.caption]
                    origin = origin or replace(origin_of(clip, captions, times), options=self.options)
                    window.origin = origin
                    yield window
                yield ClipEnd()
            except InputError as error:
                yield Failure(clip.name, str(error))

    def _windows(self, clip: Clip) -> Iterator[Window]:
        if isinstance(clip, SceneClip):
            return scene_windows(clip, self.plan, self.compression, self.done)
        return windows_of(clip, self.plan, self.compression, self.done)


def decode_ahead(decoder: ClipDecoder, workers: int) -> Iterator[Item]:
    """Run a decoder in ``workers`` processes, or in this one when 0.

    Raises:
        InputError: shared memory is too small for the windows held there.
    """
    if workers < 0:
        raise InputError(f"workers={workers}: expected 0 or more")
    workers = min(workers, len(decoder.clips))
    if workers:
        _check_shared_memory(decoder.plan, workers, max(len(clip.videos) for clip in decoder.clips))
        # Decoders that this process has done with, but not freed, have threads that a worker would wait for in vain.
        gc.collect()
    loader = DataLoader(
        decoder,
        batch_size=None,
        num_workers=workers,
        prefetch_factor=PREFETCH if workers else None,
        worker_init_fn=end_with_this_process(),
    )
    yield from loader


def default_workers() -> int:
    """Decoding processes per rank: the machine's cores shared by its ranks, one left for the rank, at most 16."""
    return max(1, min(16, usable_cores() - 1))


def _check_shared_memory(plan: WindowPlan, workers: int, views: int) -> None:
    """Containers often have 64 MB of shared memory; a worker would die there without a word on the cause."""
    if not SHARED_MEMORY.is_dir():
        return
    window = 3 * views * plan.frames * max(height * width for height, width in plan.sizes)
    needed, free = window * (workers * PREFETCH + 1), shutil.disk_usage(SHARED_MEMORY).free
    if needed > free:
        raise InputError(
            f"{workers} decoding processes need {needed >> 20} MiB of shared memory, {SHARED_MEMORY} has "
            f"{free >> 20} MiB free: give fewer --workers (0 decodes in the main process), or start the container "
            "with --ipc=host or --shm-size"
        )
