"""What a record costs, and that each is read once an epoch, at a size at which a cost per record would show."""

from __future__ import annotations

import pickle
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from nemo_cosmos.bench import records
from nemo_cosmos.data.shards import OPEN_FILES, ShardDataset

COUNT, SHARDS = 20_000, 100


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("many") / "records"
    records.write_records(path, records=COUNT, shards=SHARDS)
    return path


def test_bytes_of_a_record(folder: Path) -> None:
    """Held, while the folder is opened and its digest made, and sent to each reading process."""
    tracemalloc.start()
    dataset = ShardDataset(folder)
    held, _ = tracemalloc.get_traced_memory()
    assert len(dataset.digest) == 64
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(dataset) == COUNT
    assert held / COUNT < 180
    assert most / COUNT < 400
    assert len(pickle.dumps(dataset)) / COUNT < 100


def test_open_files_are_few(folder: Path) -> None:
    dataset = ShardDataset(folder)
    before = records.open_files()
    for number in range(0, COUNT, COUNT // (2 * SHARDS)):
        dataset[number]
    assert SHARDS > OPEN_FILES >= records.open_files() - before


@pytest.mark.parametrize(("ranks", "workers"), [(1, 0), (3, 0), (8, 0), (1, 1)])
def test_every_record_once_an_epoch(ranks: int, workers: int) -> None:
    """Of an epoch that does not end with a batch, too: what is left of that batch belongs to the next one."""
    count = COUNT - 1
    seen, twice = records.first_epoch(count, ranks, workers=workers)
    assert np.array_equal(seen, np.ones(count, np.int64)) and twice == 0
