"""A disk that fills up: one line that says where, what was finished stays, and the same command goes on after that."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.faults.commands import run
from tests.faults.conftest import Reference
from tests.faults.jobs import JOBS, result

LARGEST = {"train": 100_000, "tokenizer train": 20_000, "prepare": 3_000, "generate": 1_000}
"""Bytes beyond which no file may grow; less than the largest of each command has."""


def intact(found: dict[str, Any], expected: dict[str, Any], name: str) -> None:
    """What stands under its final name is whole, and nothing lies beside it."""
    logs = ("metrics.jsonl", "config.yaml", "tensorboard/", "latest_checkpoint.txt", "prepare.json")
    for file, content in found.items():
        assert not any(part.startswith(".") and part != ".metadata" for part in Path(file).parts), f"{name}: {file}"
        if not any(log in file for log in logs):
            # Saves of before the last one may have gone from what is expected.
            assert content == expected.get(file, content), f"{name}: {file}"


@pytest.mark.parametrize("name", JOBS)
def test_no_file_may_grow(name: str, materials: Path, reference: Callable[[str], Reference], tmp_path: Path) -> None:
    expected, folder = reference(name), tmp_path / "out"
    words = JOBS[name].words(materials, folder)
    ended = run(words, folder, limit=LARGEST[name])
    assert ended.status == 2, ended.log
    assert str(folder) in ended.error and "space" in ended.error
    intact(result(folder, JOBS[name]), expected.result, name)
    again = run(words, folder)
    assert again.status == 0, again.log
    assert result(folder, JOBS[name]) == expected.result


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[int], Path]]:
    """A function that gives a file system of so many bytes; called again, the same one with another size."""
    folder = tmp_path / "out"
    folder.mkdir()

    def mount(size: int) -> Path:
        again = "remount," if folder.is_mount() else ""
        command = ["mount", "-t", "tmpfs", "-o", f"{again}size={size}", "tmpfs", str(folder)]
        if os.geteuid() or subprocess.run(command, capture_output=True).returncode:
            pytest.skip("a small file system cannot be mounted here")
        return folder

    yield mount
    if folder.is_mount():
        subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.faults
@pytest.mark.parametrize("share", [0.1, 0.3, 0.5, 0.7, 0.9])
@pytest.mark.parametrize("name", JOBS)
def test_full_file_system(
    name: str,
    share: float,
    materials: Path,
    reference: Callable[[str], Reference],
    small_disk: Callable[[int], Path],
) -> None:
    """It holds a share of what the command writes, and after that more than all of it."""
    expected = reference(name)
    size = sum(-(-file.stat().st_size // 4096) * 4096 for file in expected.folder.rglob("*") if file.is_file())
    folder = small_disk(int(share * size))
    words = JOBS[name].words(materials, folder)
    ended = run(words, folder)
    assert ended.status == 2, ended.log
    assert str(folder) in ended.error and "space" in ended.error
    intact(result(folder, JOBS[name]), expected.result, name)
    small_disk(4 * size)
    again = run(words, folder)
    assert again.status == 0, again.log
    assert result(folder, JOBS[name]) == expected.result
