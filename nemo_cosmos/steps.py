"""Steps that are done once: a list of commands that goes on where an earlier call stopped.

The log file records for every step what it was asked for. A step whose request is unchanged is skipped; one that was
interrupted is started again and resumes by itself; one whose request changed is done anew, and so are all after it.
"""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from nemo_cosmos.atomic import write_json
from nemo_cosmos.errors import InputError, require_replaceable
from nemo_cosmos.typed import from_json, read_object


@dataclass(frozen=True)
class Step:
    """One step: what it is asked for, how it is done, and what it writes.

    Attributes:
        name: of its line in `steps.json`.
        request: whatever its result depends on besides the steps before it, as JSON.
        run: does it; an interrupted step is run again with its outputs in place.
        outputs: files and folders removed before the step is done anew for another request.
        command: shown to the user.
    """

    name: str
    request: Any
    run: Callable[[], None]
    outputs: Sequence[Path]
    command: str


@dataclass
class _Record:
    """What `steps.json` says of a step."""

    key: str
    done: bool
    seconds: float


class StepLog:
    """`steps.json`: per step the request's hash, whether it is done, and its seconds."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.records: dict[str, dict[str, Any]] = {}
        require_replaceable(file)
        if not file.is_file():
            return
        try:
            for name, record in read_object(file).items():
                self.records[name] = asdict(from_json(_Record, record, f"{name!r}"))
        except InputError as error:
            raise InputError(f"{file} is damaged ({error}); delete {file.parent} and start again") from error

    def perform(self, steps: Sequence[Step]) -> None:
        """Does the steps in order, skipping those that are done."""
        from rich.console import Console

        console = Console(highlight=False, soft_wrap=True)
        before = ""
        for number, step in enumerate(steps, 1):
            key = hashlib.sha256(json.dumps([before, step.request], sort_keys=True).encode()).hexdigest()
            before = key
            record = self.records.get(step.name, {})
            title = f"[{number}/{len(steps)}] {step.name}"
            if record.get("key") == key and record.get("done") and all(path.exists() for path in step.outputs):
                console.print(f"{title}: done before in {format_seconds(record['seconds'])}, skipped", markup=False)
                continue
            if record.get("key") != key:
                for path in step.outputs:
                    _remove(path)
            spent = record.get("seconds", 0.0) if record.get("key") == key else 0.0
            console.print(f"{title}: {step.command}", markup=False, style="bold")
            self._record(step.name, key, done=False, seconds=spent)
            start = time.perf_counter()
            try:
                step.run()
            finally:
                spent += time.perf_counter() - start
                self._record(step.name, key, done=False, seconds=spent)
            self._record(step.name, key, done=True, seconds=spent)
            console.print(f"{title}: done in {format_seconds(spent)}", markup=False, style="green")

    def _record(self, name: str, key: str, *, done: bool, seconds: float) -> None:
        self.records[name] = {"key": key, "done": done, "seconds": seconds}
        write_json(self.file, self.records)


def command_line(arguments: list[str], processes: int) -> tuple[str, list[str]]:
    """What the user would type, and the same for this very interpreter."""
    if processes == 1:
        return shlex.join(["nemo-cosmos", *arguments]), [sys.executable, "-m", "nemo_cosmos", *arguments]
    launch = ["--standalone", f"--nproc_per_node={processes}", "-m", "nemo_cosmos", *arguments]
    return shlex.join(["torchrun", *launch]), [sys.executable, "-m", "torch.distributed.run", *launch]


def call_command(name: str, command: list[str]) -> None:
    """Runs a command with one thread a process; its own messages are the user's.

    The demo's tensors are too small to share: more threads would wait for each other, on a busy machine for seconds.
    """
    status = subprocess.run(command, env={"OMP_NUM_THREADS": "1", **os.environ}, check=False).returncode
    if status:
        print(f"the step {name} failed; the same command goes on from here", file=sys.stderr)
        raise SystemExit(2 if status == 2 else 1)


def format_seconds(seconds: float) -> str:
    """`4.2 s`, `3 min 05 s`."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    return f"{int(seconds) // 60} min {int(seconds) % 60:02d} s"


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
