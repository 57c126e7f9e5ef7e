"""Many files are shared by several processes; what comes of them is as of one."""

from __future__ import annotations

import multiprocessing
import os
from pathlib import Path

import pytest

from nemo_cosmos.data import file_pool
from nemo_cosmos.data.file_pool import map_files
from nemo_cosmos.errors import InputError


def who(path: Path) -> tuple[str, int]:
    if path.name.startswith("bad"):
        raise InputError(f"{path} is bad")
    return path.name, os.getpid()


@pytest.fixture(autouse=True)
def two_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file_pool, "usable_cores", lambda: 2)


def test_results_and_errors_come_in_order_from_several_processes() -> None:
    files = [Path(f"bad \udcff {number}" if number in (7, 200) else str(number)) for number in range(file_pool.MANY)]
    results = list(map_files(who, files))
    errors = {number: str(result) for number, result in enumerate(results) if isinstance(result, Exception)}
    assert errors == {number: f"{files[number]} is bad" for number in (7, 200)}
    assert all(isinstance(results[number], InputError) for number in errors)
    found = [result for result in results if not isinstance(result, Exception)]
    assert [name for name, _ in found] == [file.name for number, file in enumerate(files) if number not in errors]
    processes = {process for _, process in found}
    assert len(processes) == 2 and os.getpid() not in processes
    assert multiprocessing.active_children() == []


def test_processes_end_with_who_asks_no_more() -> None:
    results = map_files(who, [Path(str(number)) for number in range(5000)])
    next(results)
    assert len(multiprocessing.active_children()) == 2
    results.close()
    assert multiprocessing.active_children() == []


def test_few_files_need_no_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    few = [Path(str(number)) for number in range(file_pool.MANY - 1)]
    assert {process for _, process in map_files(who, few)} == {os.getpid()}  # type: ignore[misc]
    monkeypatch.setattr(file_pool, "usable_cores", lambda: 1)
    many = [Path(str(number)) for number in range(file_pool.MANY)]
    assert {process for _, process in map_files(who, many)} == {os.getpid()}  # type: ignore[misc]
