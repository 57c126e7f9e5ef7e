"""Readers of others' files answer any bytes with a value or with InputError; what once escaped is read again."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import pytest

from nemo_cosmos.errors import InputError
from tests.fuzz.mutate import mutate
from tests.fuzz.run import CORPUS
from tests.fuzz.targets import TARGETS

CASES = 60
"""Fresh changes a target; `python -m tests.fuzz.run` makes thousands a minute."""
KEPT = sorted(CORPUS.glob("*/*"))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folders = {}
    for name, target in TARGETS.items():
        folders[name] = tmp_path_factory.mktemp(name)
        target.make(folders[name])
    return folders


def read_or_refuse(name: str, folder: Path) -> None:
    try:
        TARGETS[name].read(folder)
    except InputError as error:
        assert str(error).strip()


@pytest.mark.parametrize("case", KEPT, ids=lambda case: f"{case.parent.name}-{case.name}")
def test_what_once_escaped_is_read_or_refused(case: Path, made: dict[str, Path], tmp_path: Path) -> None:
    name = case.parent.name
    folder = tmp_path / "copy"
    shutil.copytree(made[name], folder)
    ending = case.name.split(".", 1)[1]
    (file,) = {file for file in TARGETS[name].files if Path(file).name.lstrip(".") == ending}
    (folder / file).write_bytes(case.read_bytes())
    read_or_refuse(name, folder)


@pytest.mark.parametrize("name", TARGETS)
def test_changed_files_are_read_or_refused(name: str, made: dict[str, Path], tmp_path: Path) -> None:
    folder, chosen = tmp_path / "copy", random.Random(name)
    shutil.copytree(made[name], folder)
    whole = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    for _ in range(CASES):
        file = folder / chosen.choice(TARGETS[name].files)
        file.write_bytes(mutate(whole[file], chosen))
        read_or_refuse(name, folder)
        for path, content in whole.items():
            if path.read_bytes() != content:
                path.write_bytes(content)
