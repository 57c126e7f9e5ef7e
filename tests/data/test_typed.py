"""Files of JSON that are damaged or made up are refused by name, whatever stands in them."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path
from typing import Any

import pytest

from nemo_cosmos.data.manifest import Manifest, read_index
from nemo_cosmos.data.shards import ShardDataset, decode_sample, encode_sample
from nemo_cosmos.errors import InputError
from tests.training.shards import write_shards

DEEP = "[" * 100_000 + "]" * 100_000
ODD: list[Any] = [None, True, -1, 2**63, 1.5, float("nan"), float("inf"), "x", "a\0", [], [None], [[[]]], {}, {"a": 1}]


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_shards(tmp_path_factory.mktemp("typed") / "shards", count=4, shape=(2, 4, 4))


def refused_or_read(read: Any, name: str) -> None:
    try:
        read()
    except InputError as error:
        assert name in str(error) and "\n" not in str(error)


@pytest.mark.parametrize("file", ["manifest.json", "shard-0000-000000.index.json"])
def test_every_field_may_hold_anything(tmp_path: Path, shards: Path, file: str) -> None:
    copy = tmp_path / "shards"
    shutil.copytree(shards, copy)
    whole = json.loads((copy / file).read_text())
    read = (lambda: ShardDataset(copy)) if file == "manifest.json" else (lambda: read_index(copy / file))
    for key in whole:
        for value in ODD:
            (copy / file).write_text(json.dumps({**whole, key: value}))
            refused_or_read(read, str(copy))
        (copy / file).write_text(json.dumps({k: v for k, v in whole.items() if k != key}))
        refused_or_read(read, str(copy))
    for content in (DEEP, '{"format": ' + DEEP + "}", "", "null", "[]", "1" * 10_000, json.dumps({**whole, "x": 1})):
        (copy / file).write_text(content)
        with pytest.raises(InputError, match=file):
            read()


@pytest.mark.parametrize("name", ["../x.tar", "/etc/passwd", "..", "", "a/b.tar", "x" * 300, "a\0.tar"])
def test_shards_lie_in_the_folder_itself(tmp_path: Path, shards: Path, name: str) -> None:
    copy = tmp_path / "shards"
    shutil.copytree(shards, copy)
    values = json.loads((copy / "manifest.json").read_text())
    values["shards"][0]["file"] = name
    (copy / "manifest.json").write_text(json.dumps(values))
    with pytest.raises(InputError, match=r"manifest\.json"):
        Manifest.load(copy)


@pytest.mark.parametrize("place", [[0, 2**40, 0], [2**62, 2**62, 0], [-1, 1, 0], [0, 1], [0.0, 1, 0], [True, 1, 0], 3])
def test_places_beyond_the_shard_are_refused(tmp_path: Path, shards: Path, place: Any) -> None:
    source = shards / "shard-0000-000000.index.json"
    values = json.loads(source.read_text())
    values["tensors"][1] = place
    (tmp_path / source.name).write_text(json.dumps(values))
    with pytest.raises(InputError, match=source.name):
        read_index(tmp_path / source.name)


def test_records_of_samples_with_changed_bytes(shards: Path) -> None:
    tensors, record = encode_sample(ShardDataset(shards)[0])
    chosen = random.Random(13)
    for _ in range(2000):
        parts = [bytearray(tensors[:600]) + tensors[600:], bytearray(record)]
        part = chosen.choice(parts)
        part[chosen.randrange(min(len(part), 600))] ^= 1 << chosen.randrange(8)
        refused_or_read(lambda: decode_sample(bytes(parts[0]), bytes(parts[1]), "sample 7"), "sample 7")  # noqa: B023
    for key in json.loads(record):
        for value in ODD:
            changed = json.dumps({**json.loads(record), key: value}).encode()
            refused_or_read(lambda: decode_sample(tensors, changed, "sample 7"), "sample 7")  # noqa: B023
