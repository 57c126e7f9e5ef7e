"""Numbers of every tiny network stay what they were; see make.py."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

FILE = Path(__file__).parent / "numbers.json"
RELATIVE = 2e-4
"""Kernels of other processors round otherwise, and twenty steps carry that on."""


def flat(values: dict[str, Any], name: str = "") -> Iterator[tuple[str, list[float]]]:
    for key, value in values.items():
        if isinstance(value, dict):
            yield from flat(value, f"{name}{key} ")
        else:
            yield name + key, value


def test_golden_numbers() -> None:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "tests.golden.make", "--print"],
        capture_output=True, text=True, cwd=FILE.parents[2], env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = dict(flat(json.loads(done.stdout[done.stdout.index("\n{") + 1 :])))
    golden = dict(flat(json.loads(FILE.read_text())))
    assert found.keys() == golden.keys()
    for name, values in golden.items():
        assert found[name] == pytest.approx(values, rel=RELATIVE, abs=1e-6), name
