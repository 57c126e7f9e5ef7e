"""Which sample stands at which position of a run, and which rank reads it.

Position p of a run holds sample ``order(p // N)[p % N]`` of the N samples, where the order of an epoch is a
permutation drawn from (seed, epoch). Step s reads positions s·G to (s+1)·G - 1 of a global batch of G. Nothing else
decides what is read, so a run resumes at any step, on any number of ranks and workers, without having kept a position.

Samples of several shapes lie in buckets of one shape each, and a global batch is of one bucket. A bucket of n samples
has ⌈n / G⌉ batches an epoch, the last of which is filled with the bucket's first samples of that epoch; the batches of
all buckets come in an order drawn from (seed, epoch).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from nemo_cosmos.errors import InputError

T_co = TypeVar("T_co", covariant=True)
"""A sample: latents of a folder of shards, or the frames of a clip."""


Numbers = np.ndarray | range
"""Of samples; a range takes no memory."""
LatentShape = tuple[int, int, int, int]
"""(channels, frames, height, width)."""


@dataclass(frozen=True)
class Bucket:
    """Samples whose latents have one shape and one number of views.

    Attributes:
        shape: of every latent.
        samples: (n,) int numbers of the samples.
        rigs: the lists of view ids that occur; empty for samples of one view.
    """

    shape: LatentShape
    samples: Numbers
    rigs: tuple[tuple[int, ...], ...] = ()

    @property
    def num_views(self) -> int:
        """Of every sample."""
        return len(self.rigs[0]) if self.rigs else 1


class SampleSource(Protocol[T_co]):
    """Samples addressed by their number, such as a folder of shards."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> T_co: ...


class Order(Protocol):
    """Which sample stands at a position."""

    def __call__(self, position: int) -> int: ...


@dataclass(frozen=True)
class EpochOrder:
    """All ``count`` samples of one shape, epoch by epoch."""

    count: int
    seed: int
    shuffle: bool = True

    def __call__(self, position: int) -> int:
        """The number of the sample."""
        epoch, offset = divmod(position, self.count)
        if not self.shuffle:
            return offset
        return int(epoch_order(self.count, self.seed, epoch)[offset])


class BucketOrder:
    """Global batches of one bucket each, epoch by epoch.

    Args:
        buckets: numbers of the samples of each bucket, none empty.
        global_batch: positions of a step.
        seed: of the orders of batches and, within the buckets, of samples.
        shuffle: False takes buckets and samples as they are listed.
    """

    def __init__(self, buckets: Sequence[Numbers], *, global_batch: int, seed: int, shuffle: bool = True) -> None:
        self.buckets, self.global_batch, self.seed, self.shuffle = buckets, global_batch, seed, shuffle
        self.sizes = tuple(map(len, buckets))

    @property
    def batches_per_epoch(self) -> int:
        """Steps in which every sample has been read at least once."""
        return sum(-(-size // self.global_batch) for size in self.sizes)

    def __call__(self, position: int) -> int:
        """The number of the sample."""
        batch, row = divmod(position, self.global_batch)
        epoch, batch = divmod(batch, self.batches_per_epoch)
        batches, orders = bucket_orders(self.sizes, self.global_batch, self.seed if self.shuffle else None, epoch)
        bucket, number = batches[batch].tolist()
        offset = (number * self.global_batch + row) % self.sizes[bucket]
        return int(self.buckets[bucket][orders[bucket][offset]])


class PositionDataset(Dataset[tuple[int, T_co]]):
    """(position, sample) for any position of a run.

    Args:
        source: the samples.
        seed: of their order.
        shuffle: another order every epoch.
        buckets: where the samples have several shapes, the numbers of those of each.
        global_batch: positions of a step; without buckets it has no part in the order.
    """

    def __init__(
        self,
        source: SampleSource[T_co],
        *,
        seed: int,
        shuffle: bool = True,
        buckets: Sequence[Numbers] = (),
        global_batch: int = 1,
    ) -> None:
        if len(source) == 0:
            raise InputError("the dataset holds no samples")
        self.source = source
        self.order: Order = EpochOrder(len(source), seed, shuffle)
        if len(buckets) > 1:
            self.order = BucketOrder(buckets, global_batch=global_batch, seed=seed, shuffle=shuffle)

    def sample_index(self, position: int) -> int:
        """The number of the sample at a position."""
        return self.order(position)

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
    return torch.randperm(count, generator=_generator(seed, epoch))


@lru_cache(maxsize=2)
def bucket_orders(
    sizes: tuple[int, ...], global_batch: int, seed: int | None, epoch: int
) -> tuple[Tensor, list[Tensor]]:
    """One epoch of buckets of these sizes; seed None leaves everything in its order.

    Returns:
        (batches, 2) bucket of each batch and the batch's number in it; and the order of the samples of each bucket.
    """
    batches = torch.tensor([(b, i) for b, size in enumerate(sizes) for i in range(-(-size // global_batch))])
    if seed is None:
        return batches, [torch.arange(size) for size in sizes]
    generator = _generator(seed, epoch)
    batches = batches[torch.randperm(len(batches), generator=generator)]
    return batches, [torch.randperm(size, generator=generator) for size in sizes]


def _generator(seed: int, epoch: int) -> torch.Generator:
    return torch.Generator().manual_seed((seed * 1_000_003 + epoch) % 2**63)


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
