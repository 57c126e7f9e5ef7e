"""Materials and undisturbed runs, each made once."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from tests.faults.commands import Ended, Trap, run, touches
from tests.faults.jobs import JOBS, result, write_materials


class Reference:
    """What a command makes when nothing happens to it."""

    def __init__(self, name: str, materials: Path, folder: Path) -> None:
        self.folder, self.job = folder, JOBS[name]
        self.ended: Ended = run(self.job.words(materials, folder), folder, trap=Trap(signal=0))
        assert self.ended.status == 0, self.ended.log
        self.result: dict[str, Any] = result(folder, self.job)
        self.touches = touches(folder)


@pytest.fixture(scope="session")
def materials(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_materials(tmp_path_factory.mktemp("materials"))


@pytest.fixture(scope="session")
def reference(materials: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Reference]:
    folder = tmp_path_factory.mktemp("reference")
    return cache(lambda name: Reference(name, materials, folder / name.replace(" ", "_")))
