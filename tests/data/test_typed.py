"""Files of JSON that are damaged or made up are refused by name, whatever stands in them."""

from __future__ import annotations

import json
import math
import random
import shutil
from pathlib import Path
from typing import Any

import pytest

from nemo_cosmos.data.manifest import Manifest, read_index
from nemo_cosmos.data.record import DataRecord, read_data_record
from nemo_cosmos.data.shards import ShardDataset, decode_sample, encode_sample
from nemo_cosmos.errors import InputError
from nemo_cosmos.inference.requests import requests_from_jsonl
from nemo_cosmos.models.tokenizer.config import TokenizerConfig
from nemo_cosmos.models.tokenizer.pretrained import _read_statistics
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


@pytest.mark.parametrize("key", ["path", "digest", "samples", "fps"])
def test_the_record_of_a_run_may_hold_anything(tmp_path: Path, key: str) -> None:
    record = DataRecord("shards", "0" * 64, 3, [24.0])
    record.save(tmp_path)
    assert read_data_record(tmp_path) == record
    for value in ODD:
        (tmp_path / "data.json").write_text(json.dumps({**vars(record), key: value}))
        refused_or_read(lambda: read_data_record(tmp_path), "data.json")


@pytest.mark.parametrize(
    "line",
    [
        DEEP, '{"prompt": "a", "name": "../a"}', '{"prompt": "a", "name": "\\ud800"}', '{"prompt": "a", "seed": -1}',
        json.dumps({"prompt": "a", "name": "x" * 300}), '{"prompt": "a", "seed": 99999999999999999999}',
        '{"prompt": [1]}', '{"prompt": [["a"]]}',
    ],
)  # fmt: skip
def test_lines_of_a_batch_that_no_video_can_be_made_from(tmp_path: Path, line: str) -> None:
    (tmp_path / "batch.jsonl").write_text(line + "\n")
    with pytest.raises(InputError):
        requests_from_jsonl(tmp_path / "batch.jsonl")


@pytest.mark.parametrize(
    "mean", [[[math.nan]], [[math.inf]], [["a"]], [[1], [2, 3]], "x", 3, None, {"a": 1}, [[10**400]]]
)
def test_statistics_of_latents_are_finite_numbers(tmp_path: Path, mean: Any) -> None:
    config = TokenizerConfig.preset("CV4x8x8-360p", latent_channels=1)
    for values in ({"mean": mean, "std": [[1.0]]}, {"mean": [[0.0]], "std": mean}, [mean]):
        (tmp_path / "latent_stats.json").write_text(json.dumps(values))
        with pytest.raises(InputError, match=tmp_path.name):
            _read_statistics(tmp_path, config)
    (tmp_path / "latent_stats.json").write_text(DEEP)
    with pytest.raises(InputError, match=r"latent_stats\.json"):
        _read_statistics(tmp_path, config)
