"""Clips on their way from the processes that read them to the device: as levels, a quarter of the bytes of fp32."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator
from typing import Protocol

import torch
from torch import Tensor
from torch.utils.data import Dataset, default_collate

from nemo_cosmos.errors import InputError
from nemo_cosmos.pixels import from_levels


def batches_on(loader: Iterable[Tensor | InputError], device: torch.device) -> Iterator[Tensor]:
    """Batches (micro_batch, 3, T, H, W) in [−1, 1], fp32, on a device, with the same bits on every one.

    Raises:
        InputError: a clip could not be read.
    """
    for batch in loader:
        if isinstance(batch, InputError):
            raise batch
        yield _in_range(batch, device)


def _in_range(batch: Tensor, device: torch.device) -> Tensor:
    if batch.dtype != torch.uint8:
        return batch.to(device, non_blocking=True)
    if device.type == "cpu":
        return from_levels(batch)
    return _table(device)[batch.to(device, non_blocking=True).int()]


@functools.cache
def _table(device: torch.device) -> Tensor:
    """What each level becomes: dividing on a GPU gives other last bits than on the CPU."""
    return from_levels(torch.arange(256)).to(device)


class HasLevels(Protocol):
    """Clips by position in the run."""

    def levels(self, position: int) -> Tensor:
        """(3, T, H, W) from 0 to 255, uint8 or fp32; InputError where it cannot be read."""
        ...


class Levels(Dataset["Tensor | InputError"]):
    """Levels of clips for a DataLoader; one that cannot be read gives its error as a value, to which a reader process
    adds no traceback."""

    def __init__(self, clips: HasLevels) -> None:
        self.clips = clips

    def __getitem__(self, position: int) -> Tensor | InputError:
        try:
            return self.clips.levels(position)
        except InputError as error:
            return error


def collate_levels(clips: list[Tensor | InputError]) -> Tensor | InputError:
    """Levels where all are uint8, else [−1, 1]; the first error where there is one."""
    levels: list[Tensor] = []
    for clip in clips:
        if isinstance(clip, InputError):
            return clip
        levels.append(clip)
    if any(clip.dtype != torch.uint8 for clip in levels):
        levels = [from_levels(clip) for clip in levels]
    batch: Tensor = default_collate(levels)
    return batch
