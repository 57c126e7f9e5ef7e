"""A damaged file of a save or of a dataset is named in one line."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from nemo_cosmos.data.shards import ShardDataset, encode_sample
from nemo_cosmos.errors import InputError
from tests.faults.commands import run
from tests.faults.conftest import Reference
from tests.faults.jobs import JOBS, STEPS, result

LAST = f"checkpoints/iter_{STEPS:09d}"


def truncate(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def flip(file: Path) -> None:
    """One bit, at a place that the file's length decides."""
    content = bytearray(file.read_bytes())
    content[random.Random(len(content)).randrange(len(content))] ^= 4
    file.write_bytes(content)


def empty(file: Path) -> None:
    file.write_bytes(b"")


DAMAGES: tuple[Callable[[Path], None], ...] = (truncate, flip, empty, Path.unlink)


def name_of(damage: Callable[[Path], None]) -> str:
    return "remove" if damage is Path.unlink else damage.__name__


READ_AGAIN = {
    "train": ("weights/__0_0_0.distcp", "weights/.metadata", "weights/common.pt"),
    "tokenizer train": (".pt",),
}
"""What a resumed run reads of a save."""
SHORT = {("train", "weights/__0_0_0.distcp", "flip"), ("tokenizer train", ".pt", "truncate")}
SAVES = [
    pytest.param(
        name,
        part,
        damage,
        id=f"{name}-{part}-{name_of(damage)}",
        marks=[] if (name, part, name_of(damage)) in SHORT else [pytest.mark.faults],
    )
    for name, parts in READ_AGAIN.items()
    for part in parts
    for damage in DAMAGES
]


def continued(name: str, materials: Path, reference: Callable[[str], Reference], folder: Path) -> list[str]:
    """A finished run in ``folder``, and the command that goes on with it for two more steps."""
    shutil.copytree(reference(name).folder, folder)
    return [*JOBS[name].words(materials, folder), f"trainer.max_steps={STEPS + 2}"]


@pytest.mark.parametrize(("name", "part", "damage"), SAVES)
def test_a_file_of_the_newest_save(
    name: str,
    part: str,
    damage: Callable[[Path], None],
    materials: Path,
    reference: Callable[[str], Reference],
    tmp_path: Path,
) -> None:
    folder = tmp_path / "out"
    words = continued(name, materials, reference, folder)
    file = folder / (f"{LAST}/{part}" if "/" in part else f"{LAST}{part}")
    damage(file)
    before = result(folder, JOBS[name])
    ended = run(words, folder)
    assert ended.status == 2, ended.log
    assert file.name in ended.error
    assert result(folder, JOBS[name]).keys() == before.keys()


@pytest.mark.parametrize("damage", DAMAGES, ids=name_of)
@pytest.mark.parametrize("part", ["manifest.json", "shard-0000-000001.tar", "shard-0000-000001.index.json"])
def test_a_file_of_the_dataset(
    part: str, damage: Callable[[Path], None], materials: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Through ``train`` as a user starts it, and through ``prepare``, which mends what it made."""
    shards = shutil.copytree(materials / "shards", tmp_path / "shards")
    damage(shards / part)
    words = [w.replace(str(materials / "shards"), str(shards)) for w in JOBS["train"].words(materials, tmp_path / "o")]
    ended = run(words, tmp_path / "o")
    assert ended.status == 2 and part in ended.error, ended.log
    assert not (tmp_path / "o").exists() or not list((tmp_path / "o").iterdir())


@pytest.mark.faults
@pytest.mark.parametrize("damage", DAMAGES, ids=name_of)
@pytest.mark.parametrize("part", ["manifest.json", "shard-0000-000001.tar", "shard-0000-000001.index.json"])
def test_prepare_mends_or_names(
    part: str, damage: Callable[[Path], None], materials: Path, reference: Callable[[str], Reference], tmp_path: Path
) -> None:
    expected, folder = reference("prepare"), tmp_path / "out"
    shutil.copytree(expected.folder, folder)
    damage(folder / part)
    words = JOBS["prepare"].words(materials, folder)
    ended = run(words, folder)
    if ended.status == 2:
        assert part.partition(".")[0] in ended.error
        return
    assert ended.status == 0, ended.log
    try:
        assert samples(folder) == samples(expected.folder)
    except InputError as error:
        # Finished shards are not read again: training, validate and whoever reads the samples name the damage.
        assert part == "shard-0000-000001.tar" and damage is flip and part in str(error)


def samples(folder: Path) -> list[tuple[bytes, bytes]]:
    return [encode_sample(sample) for sample in ShardDataset(folder, verify="full")]
