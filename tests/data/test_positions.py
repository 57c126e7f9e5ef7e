"""Which sample stands at which position: one shape, and buckets of several."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from nemo_cosmos.data.positions import PositionDataset, PositionSampler, epoch_order

BUCKETS = [np.array([0, 3, 4, 8, 10]), np.array([1, 2, 5, 6]), np.array([7]), np.array([9, 11])]
BATCH = 2
STEPS = 3 + 2 + 1 + 1
"""Of an epoch."""


def bucketed(**options: object) -> PositionDataset[int]:
    return PositionDataset(range(12), **{"seed": 3, "buckets": BUCKETS, "global_batch": BATCH, **options})  # type: ignore[arg-type]


def steps(dataset: PositionDataset[int], first: int, last: int) -> list[list[int]]:
    return [[dataset[BATCH * step + row][1] for row in range(BATCH)] for step in range(first, last)]


def test_samples_of_one_shape_keep_their_order() -> None:
    dataset = PositionDataset(range(5), seed=7)
    expected = [int(epoch_order(5, 7, epoch)[offset]) for epoch in range(3) for offset in range(5)]
    assert [dataset[position][1] for position in range(15)] == expected
    assert epoch_order(5, 7, 0).tolist() == [3, 0, 1, 4, 2]


def test_a_step_is_of_one_bucket_and_an_epoch_has_every_sample() -> None:
    dataset = bucketed()
    bucket_of = {int(sample): number for number, bucket in enumerate(BUCKETS) for sample in bucket}
    for epoch in range(4):
        found = steps(dataset, epoch * STEPS, (epoch + 1) * STEPS)
        assert all(len({bucket_of[sample] for sample in step}) == 1 for step in found)
        counts = np.bincount(list(itertools.chain.from_iterable(found)), minlength=12)
        # Five samples fill three batches of two with one of their own, a single one fills its batch by itself.
        assert counts.min() == 1
        assert sorted(counts[BUCKETS[0]]) == [1, 1, 1, 1, 2]
        assert counts[BUCKETS[1]].max() == counts[BUCKETS[3]].max() == 1
        assert counts[7] == 2


def test_the_order_of_batches_and_samples_changes_with_epoch_and_seed() -> None:
    first, second = steps(bucketed(), 0, STEPS), steps(bucketed(), STEPS, 2 * STEPS)
    assert first != second != steps(bucketed(seed=4), 0, STEPS) != first
    listed = steps(bucketed(shuffle=False), 0, STEPS)
    assert listed == [[0, 3], [4, 8], [10, 0], [1, 2], [5, 6], [7, 7], [9, 11]]
    assert steps(bucketed(shuffle=False), STEPS, 2 * STEPS) == listed


def test_any_step_is_found_without_those_before_it() -> None:
    forwards = steps(bucketed(), 0, 3 * STEPS)
    backwards = [steps(bucketed(), step, step + 1)[0] for step in reversed(range(3 * STEPS))]
    assert forwards == backwards[::-1]


@pytest.mark.parametrize("ranks, micro_batch", [(1, 1), (1, 2), (2, 1)])
def test_ranks_and_micro_batches_share_a_step(ranks: int, micro_batch: int) -> None:
    dataset, start = bucketed(), 5
    seen: list[list[int]] = [[] for _ in range(STEPS)]
    for rank in range(ranks):
        sampler = PositionSampler(
            micro_batch=micro_batch, global_batch=BATCH, data_rank=rank, data_size=ranks, start_step=start
        )
        per_step = BATCH // micro_batch // ranks
        for number, places in enumerate(itertools.islice(sampler, STEPS * per_step)):
            seen[number // per_step] += [dataset[place][1] for place in places]
    assert list(map(sorted, seen)) == list(map(sorted, steps(dataset, start, start + STEPS)))
