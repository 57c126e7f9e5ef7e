"""Two commands in one folder: the second one is told of the first, which goes on undisturbed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.faults.commands import Started, Trap, processes_of, wait_until
from tests.faults.conftest import Reference
from tests.faults.jobs import JOBS, result

FIRST = {"train": ("metrics.jsonl", 2), "tokenizer train": ("metrics.jsonl", 3), "prepare": (".shard-*.index*", 1)}
"""Where the first one waits."""


def stopped(process: int | None) -> bool:
    return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] == "T"


@pytest.mark.parametrize("name", FIRST)
def test_second_command(name: str, materials: Path, reference: Callable[[str], Reference], tmp_path: Path) -> None:
    expected, folder = reference(name), tmp_path / "out"
    words = JOBS[name].words(materials, folder)
    first = Started(words, folder, trap=Trap(*FIRST[name], signal=signal.SIGSTOP))
    try:
        assert wait_until(lambda: stopped(first.process.pid), 60)
        second = Started(words, folder, log=tmp_path / "second.log").wait()
    finally:
        first.send(signal.SIGCONT)
    assert second.status == 2, second.log
    assert str(folder) in second.error and f"process {first.process.pid} " in second.error
    assert first.wait().status == 0
    assert result(folder, JOBS[name]) == expected.result


def test_two_that_generate_into_one_folder(
    materials: Path, reference: Callable[[str], Reference], tmp_path: Path
) -> None:
    """There is no lock: each video appears whole, and is the same whoever made it."""
    expected, folder = reference("generate"), tmp_path / "out"
    words = JOBS["generate"].words(materials, folder)
    first = Started(words, folder, trap=Trap("v1.mp4", signal=signal.SIGSTOP))
    try:
        assert wait_until(lambda: stopped(first.process.pid), 60)
        assert Started(words, folder, log=tmp_path / "second.log").wait().status == 0
    finally:
        first.send(signal.SIGCONT)
    assert first.wait().status == 0
    assert result(folder, JOBS["generate"]) == expected.result


def children_of(process: int) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if int(fields[1]) == process:
                found.append(int(entry.name))
    return found


@pytest.mark.faults
@pytest.mark.parametrize("rank", [0, 1])
def test_a_rank_that_dies(rank: int, materials: Path, tmp_path: Path) -> None:
    """The other one ends soon, with a message; the run goes on from the newest save, on both."""
    folder, log = tmp_path / "out", tmp_path / "log"
    words = [*JOBS["train"].words(materials, folder), "parallel.tensor=2", "trainer.max_steps=1000000"]
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc_per_node=2",
        "-m",
        "nemo_cosmos",
    ]
    with log.open("wb") as stream:
        launcher = subprocess.Popen([*command, *words], stdout=stream, stderr=stream, start_new_session=True)
    try:
        latest = folder / "checkpoints" / "latest_checkpoint.txt"
        assert wait_until(lambda: latest.exists() or launcher.poll() is not None, 180)
        assert launcher.poll() is None, log.read_text()
        ranks = {}
        for child in children_of(launcher.pid):
            values = Path(f"/proc/{child}/environ").read_bytes().split(b"\0")
            ranks.update({value: child for value in values if value.startswith(b"RANK=")})
        os.kill(ranks[f"RANK={rank}".encode()], signal.SIGKILL)
        began = time.monotonic()
        assert launcher.wait(120) != 0
        assert time.monotonic() - began < 90
        assert wait_until(lambda: not processes_of(launcher.pid), 20)
    finally:
        launcher.kill()
    assert "SIGKILL" in log.read_text()
    step = int(latest.read_text()[5:14])
    last = [*words[:-1], f"trainer.max_steps={step + 1}"]
    again = subprocess.run([*command, *last], capture_output=True, text=True, timeout=240)
    assert again.returncode == 0, again.stdout + again.stderr
    assert f"step {step + 1}/" in again.stdout
