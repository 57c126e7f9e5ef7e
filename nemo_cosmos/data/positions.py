"""Which sample stands at which position of a run, and which rank reads it.

Position p of a run holds sample ``order(p // N)[p % N]`` of the N samples, where the order of an epoch is a
permutation drawn from (seed, epoch). Step s reads positions s·G to (s+1)·G - 1 of a global batch of G. Nothing else
decides what is read, so a run resumes at any step, on any number of ranks and workers, without having kept a position.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from typing import Any, Generic, Protocol, TypeVar

import torch
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from nemo_cosmos.errors import InputError

T_co = TypeVar("T_co", covariant=True)
"""A sample: latents of a folder of shards, or the frames of a clip."""


class SampleSource(Protocol[T_co]):
    """Samples addressed by their number, such as a folder of shards."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> T_co: ...


class PositionDataset(Dataset[tuple[int, T_co]]):
    """(position, sample) for any position of a run."""

    def __init__(self, source: SampleSource[T_co], *, seed: int, shuffle: bool = True) -> None:
        if len(source) == 0:
            raise InputError("the dataset holds no samples")
        self.source, self.seed, self.shuffle = source, seed, shuffle

    def sample_index(self, position: int) -> int:
        """The number of the sample at a position."""
        epoch, offset = divmod(position, len(self.source))
        if not self.shuffle:
            return offset
        return int(epoch_order(len(self.source), self.seed, epoch)[offset])

    def __getitem__(self, position: int) -> tuple[int, T_co]:
        return position, self.source[self.sample_index(position)]


class MicroBatches(Dataset[Any], Generic[T_co]):
    """Micro batches by their lists of positions; a sample that cannot be read gives the InputError as a value.

    DataLoader workers would wrap an exception in their traceback; as a value, its message reaches the user as it is.
    """

    def __init__(self, dataset: PositionDataset[T_co], collate: Callable[[Sequence[tuple[int, T_co]]], Any]) -> None:
        self.dataset, self.collate = dataset, collate

    def __getitem__(self, positions: list[int]) -> Any:
        try:
            return self.collate([self.dataset[position] for position in positions])
        except InputError as error:
            return error


@lru_cache(maxsize=2)
def epoch_order(count: int, seed: int, epoch: int) -> Tensor:
    """The order of the samples in one epoch."""
    generator = torch.Generator().manual_seed((seed * 1_000_003 + epoch) % 2**63)
    return torch.randperm(count, generator=generator)


class PositionSampler(Sampler[list[int]]):
    """Positions of this data-parallel rank's micro batches, from ``start_step`` on, without end."""

    def __init__(
        self, *, micro_batch: int, global_batch: int, data_rank: int = 0, data_size: int = 1, start_step: int = 0
    ) -> None:
        if global_batch % (micro_batch * data_size):
            raise InputError(
                f"data.global_batch={global_batch} is not divisible by data.micro_batch={micro_batch} times "
                f"{data_size} data-parallel replicas; use a multiple of {micro_batch * data_size}"
            )
        self.micro_batch, self.global_batch = micro_batch, global_batch
        self.data_rank, self.data_size, self.start_step = data_rank, data_size, start_step

    def __iter__(self) -> Iterator[list[int]]:
        step = self.start_step
        stride = self.micro_batch * self.data_size
        while True:
            first = step * self.global_batch + self.data_rank * self.micro_batch
            for offset in range(0, self.global_batch, stride):
                yield list(range(first + offset, first + offset + self.micro_batch))
            step += 1
