"""Commands as users type them, each in a process group of its own, that something happens to on the way.

A command is the real ``nemo_cosmos.cli.main`` with its arguments in ``sys.argv``, in a process forked from a server
that has imported the package: what is tried begins at once instead of after ten seconds of imports. ``Trap`` stops it
at a chosen touch of a chosen file, so that a moment between two renames is met every time.
"""

from __future__ import annotations

import contextlib
import fnmatch
import json
import os
import re
import resource
import signal
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from nemo_cosmos.interrupts import BURST_SECONDS
from tests.parallel.processes import CONTEXT

_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT
_TOUCHES = {"open": 1, "os.rename": 2, "os.remove": 1, "os.mkdir": 1, "os.rmdir": 1, "os.truncate": 1}
"""Audit events of Python that change files, and how many of their arguments are paths."""


@dataclass(frozen=True)
class Trap:
    """Sends ``signal`` to a command that is about to write, rename, make or remove a file for the n-th time.

    Attributes:
        pattern: of the path within the output folder, ``*`` for any.
        count: which touch of such a file it is.
        signal: what is sent; 0 sends nothing.
        again: it is sent once more, when it no longer counts as one with the first, and the command waits there.
    """

    pattern: str = "*"
    count: int = 1
    signal: int = signal.SIGKILL
    again: bool = False


@dataclass(frozen=True)
class Ended:
    """How a command ended.

    Attributes:
        status: as a shell shows it, 128 + signal for one that was killed.
        log: everything that it printed.
        seconds: how long it took.
    """

    status: int
    log: str
    seconds: float

    @property
    def error(self) -> str:
        """Its one ``error:`` line."""
        assert "Traceback" not in self.log, self.log
        # A progress bar may stand in the same line.
        (line,) = re.findall(r"(?:^|[\r\]])(error: .*)", self.log, flags=re.M)
        return line


class Started:
    """A command on its way."""

    def __init__(
        self,
        words: list[str],
        folder: Path,
        *,
        trap: Trap | None = None,
        limit: int | None = None,
        log: Path | None = None,
    ) -> None:
        self.folder = folder
        self.log = log or folder.with_name(f"{folder.name}.log")
        self.log.unlink(missing_ok=True)
        self.process = CONTEXT.Process(target=_entry, args=(words, folder, self.log, trap, limit))
        self.process.start()
        # The first process waits for the server's imports.
        assert wait_until(lambda: self.log.exists() or not self.process.is_alive(), 300)
        self.began = time.monotonic()

    def wait(self, seconds: float = 240) -> Ended:
        """The end of the command and of every process that it started."""
        self.process.join(seconds)
        if self.process.exitcode is None:
            self.send(signal.SIGKILL)
            raise AssertionError(f"still running after {seconds} s:\n{self.log.read_text()[-3000:]}")
        took = time.monotonic() - self.began
        code = self.process.exitcode
        left = wait_until(lambda: not processes_of(self.process.pid), 20)
        assert left, f"processes are left: {[describe(pid) for pid in processes_of(self.process.pid)]}"
        return Ended(128 - code if code < 0 else code, self.log.read_text(errors="replace"), took)

    def send(self, number: int) -> None:
        assert self.process.pid is not None
        with contextlib.suppress(ProcessLookupError):  # it has come to its end
            os.kill(self.process.pid, number)


def run(words: list[str], folder: Path, *, trap: Trap | None = None, limit: int | None = None) -> Ended:
    """A command from its start to its end.

    Args:
        words: behind ``nemo-cosmos``.
        folder: its output folder; the log lies beside it.
        trap: what happens on the way.
        limit: bytes beyond which no file can grow, as on a full disk.
    """
    return Started(words, folder, trap=trap, limit=limit).wait()


def wait_until(true: Callable[[], bool], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while not true():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def processes_of(session: int | None) -> list[int]:
    """Processes of a session, those that have ended and wait to be collected aside."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            fields = (entry / "stat").read_text().rpartition(")")[2].split() if entry.name.isdigit() else []
        except (OSError, ValueError):
            continue
        if fields and int(fields[3]) == session and fields[0] not in "ZX":
            found.append(int(entry.name))
    return found


def describe(pid: int) -> str:
    try:
        return f"{pid}: {Path(f'/proc/{pid}/cmdline').read_bytes().replace(bytes(1), b' ').decode()[:200]}"
    except OSError:
        return f"{pid}: ended"


def touches(folder: Path) -> list[str]:
    """What a command that came to its end has touched, in order."""
    return json.loads(folder.with_name(f"{folder.name}.touches").read_text())


def _entry(words: list[str], folder: Path, log: Path, trap: Trap | None, limit: int | None) -> None:
    os.setsid()
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    for stream in (1, 2):
        os.dup2(descriptor, stream)
    if limit is not None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    seen: list[str] = []
    if trap is not None:
        _watch(folder, trap, seen)
    CONTEXT.set_forkserver_preload([])  # Its readers begin as those of a command that a shell started.
    sys.argv = ["nemo-cosmos", *words]
    from nemo_cosmos.cli import main

    try:
        main()
    except SystemExit as end:
        raise SystemExit(end.code) from None
    except BaseException:
        traceback.print_exc()
        raise SystemExit(1) from None
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        if trap is not None and not trap.signal:
            folder.with_name(f"{folder.name}.touches").write_text(json.dumps(seen))


def _watch(folder: Path, trap: Trap, seen: list[str]) -> None:
    process, root = os.getpid(), f"{folder}/"

    def note(event: str, arguments: tuple) -> None:
        if event not in _TOUCHES or os.getpid() != process:
            return
        if event == "open" and not (isinstance(arguments[2], int) and arguments[2] & _WRITES):
            return
        paths = [os.fsdecode(path) for path in arguments[: _TOUCHES[event]] if isinstance(path, str | bytes | Path)]
        names = [path.removeprefix(root) for path in paths if path.startswith(root)]
        names = [name for name in names if not name.startswith("tensorboard")]  # A dozen for every step.
        if any(fnmatch.fnmatch(name, trap.pattern) for name in names):
            seen.append(f"{event} {' '.join(names)}")
            if trap.signal and len(seen) == trap.count:
                os.kill(process, trap.signal)
                if trap.again:
                    time.sleep(BURST_SECONDS + 0.5)
                    os.kill(process, trap.signal)
                    time.sleep(60)

    sys.addaudithook(note)
