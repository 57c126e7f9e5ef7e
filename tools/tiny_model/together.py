"""Commands that run at the same time, each with a log file and one line of progress."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType

from nemo_cosmos.interrupts import SIGNALS
from nemo_cosmos.steps import command_line

POLL_SECONDS = 0.5
TELL_SECONDS = 30.0
"""Between two lines about each command where there is no terminal."""
TAIL = 4096


def run_together(commands: Mapping[str, Sequence[str]], logs: Path) -> None:
    """Runs a command line for each, to the end of all; the first failure ends the others with a save.

    Args:
        commands: arguments by the name of the log, in `logs`.

    Raises:
        SystemExit: a command failed, or a signal came, which the commands have got, too.
    """
    logs.mkdir(parents=True, exist_ok=True)
    running: dict[str, subprocess.Popen[bytes]] = {}
    with _passing_on(running) as received:
        try:
            for name, arguments in commands.items():
                with (logs / f"{name}.log").open("ab") as log:
                    # One thread each: the tensors are too small to share, and many processes share the cores.
                    running[name] = subprocess.Popen(
                        command_line(list(arguments), 1)[1],
                        env={"OMP_NUM_THREADS": "1", **os.environ},
                        stdin=subprocess.DEVNULL,
                        stdout=log,
                        stderr=subprocess.STDOUT,
                    )
            failed = _wait(running, logs)
        finally:
            for process in running.values():
                if process.poll() is None:
                    process.terminate()
            for process in running.values():
                process.wait()
    if received:
        raise SystemExit(128 + received[0])
    if failed:
        status = running[failed].returncode
        print(f"{_tail(logs / f'{failed}.log')}\n{failed} failed; the same command goes on from here", file=sys.stderr)
        raise SystemExit(2 if status == 2 else 1)


@contextlib.contextmanager
def _passing_on(running: Mapping[str, subprocess.Popen[bytes]]) -> Iterator[list[int]]:
    """Signals go to the commands, which save and end; what came is in the list."""
    received: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        received.append(number)
        for process in running.values():
            if process.poll() is None:
                process.send_signal(number)

    before = {number: signal.signal(number, note) for number in SIGNALS}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _wait(running: Mapping[str, subprocess.Popen[bytes]], logs: Path) -> str | None:
    """Until all are done or one has failed, whose name this gives."""
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (SpinnerColumn(), TextColumn("{task.description}", markup=False), TimeElapsedColumn())
    with Progress(*columns) as progress:
        tasks = {name: progress.add_task(name, total=1) for name in running}
        told = time.monotonic()
        while True:
            for name, task in tasks.items():
                done = running[name].poll() is not None
                progress.update(task, description=f"{name}: {_last_line(logs / f'{name}.log')}", completed=int(done))
            if failed := next((name for name, process in running.items() if process.poll()), None):
                return failed
            if all(process.poll() == 0 for process in running.values()):
                return None
            if not progress.console.is_terminal and time.monotonic() - told > TELL_SECONDS:
                told = time.monotonic()
                for task in progress.tasks:
                    print(task.description, flush=True)
            time.sleep(POLL_SECONDS)


def _tail(log: Path) -> str:
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - TAIL))
        return file.read().decode(errors="replace").replace("\r", "\n").strip()


def _last_line(log: Path) -> str:
    return _tail(log).rpartition("\n")[2].strip()[:150]
