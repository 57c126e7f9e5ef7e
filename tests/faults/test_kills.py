"""A command that is killed at any moment and started again ends as one that was left alone, bit for bit."""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.faults.commands import Started, Trap, run
from tests.faults.conftest import Reference
from tests.faults.jobs import JOBS, result

KILLS = 20
CRUCIAL = [(name, *moment) for name, job in JOBS.items() for moment in job.crucial]


def resumed(name: str, words: list[str], folder: Path, expected: Reference) -> None:
    """Start a killed command again: same result, and nothing beside it."""
    again = run(words, folder)
    assert again.status == 0, again.log
    assert result(folder, JOBS[name]) == expected.result
    assert not [entry for entry in folder.rglob("*") if entry.name.startswith(".") and entry.name != ".metadata"]


@pytest.mark.parametrize(("name", "pattern", "count"), CRUCIAL, ids=lambda value: str(value))
def test_kill_at_a_crucial_moment(
    name: str, pattern: str, count: int, materials: Path, reference: Callable[[str], Reference], tmp_path: Path
) -> None:
    expected, folder = reference(name), tmp_path / "out"
    words = JOBS[name].words(materials, folder)
    assert run(words, folder, trap=Trap(pattern, count)).status == 128 + signal.SIGKILL
    resumed(name, words, folder, expected)


@pytest.mark.faults
@pytest.mark.parametrize("seed", range(KILLS))
@pytest.mark.parametrize("name", JOBS)
def test_kill_at_a_random_moment(
    name: str, seed: int, materials: Path, reference: Callable[[str], Reference], tmp_path: Path
) -> None:
    """Even seeds before a random touch of a file, odd ones at a random time, of these every second twice in a row and
    with a process that reads ahead."""
    draw, expected, folder = random.Random(seed), reference(name), tmp_path / "out"
    twice = seed % 4 == 3
    words = JOBS[name].words(materials, folder, int(twice))
    for _ in range(1 + twice):
        if seed % 2:
            started = Started(words, folder)
            time.sleep(draw.uniform(0.1, 1) * expected.ended.seconds)
            started.send(signal.SIGKILL)
            started.wait()
        else:
            moment = draw.randint(1, len(expected.touches))
            assert run(words, folder, trap=Trap(count=moment)).status == 128 + signal.SIGKILL
    resumed(name, words, folder, expected)
