"""Commands of the package as a user gives them, watched and, if need be, killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from gpu_checks.machine import VISIBLE, GpuMonitor, Machine

TIMEOUT = 420.0


def descendants(pid: int) -> Iterator[int]:
    """A process and all below it."""
    yield pid
    children = Path(f"/proc/{pid}/task/{pid}/children")
    if children.exists():
        for child in children.read_text().split():
            yield from descendants(int(child))


def kill(process: subprocess.Popen[bytes]) -> None:
    """SIGKILL to a whole tree, as when the power goes."""
    for pid in list(descendants(process.pid)):
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
    process.wait()


def host_bytes(pid: int) -> int:
    """Memory of a process tree, without mapped files."""
    total = 0
    for child in descendants(pid):
        try:
            lines = Path(f"/proc/{child}/status").read_text().splitlines()
        except OSError:
            continue
        total += sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon"))
    return total


class Failure(Exception):
    """A step did not do what it should."""


@dataclass
class Context:
    """Where everything lies, and how commands are started."""

    work: Path
    machine: Machine
    monitor: GpuMonitor
    rows: list[tuple[str, float, float, str, bool]] = field(default_factory=list)

    def start(self, name: str, command: Sequence[str], gpus: Sequence[int]) -> subprocess.Popen[bytes]:
        """A verb of the package on some GPUs; through torchrun where there are several. Output goes to a log."""
        torchrun = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={len(gpus)}"]
        launcher = [*(torchrun if len(gpus) > 1 else []), "-m"]
        environment = {**os.environ, "TERM": "dumb", "PYTHONUNBUFFERED": "1", "OMP_NUM_THREADS": "4"}
        if not self.machine.rehearse:
            environment["CUDA_VISIBLE_DEVICES"] = ",".join(VISIBLE[gpu] for gpu in gpus)
        line = [sys.executable, *launcher, "nemo_cosmos", *command]
        log = self.log(name)
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("wb") as file:
            file.write((" ".join(line) + "\n").encode())
            file.flush()
            return subprocess.Popen(line, stdout=file, stderr=subprocess.STDOUT, env=environment)

    def run(self, name: str, command: Sequence[str], gpus: Sequence[int] = (0,)) -> str:
        """Start, wait, and give the output; raises when it fails."""
        process = self.start(name, command, gpus)
        try:
            status = process.wait(TIMEOUT)
        except subprocess.TimeoutExpired:
            kill(process)
            raise Failure(f"{name}: still running after {TIMEOUT:.0f} s\n{self.end_of(name)}") from None
        if status:
            raise Failure(f"{name}: exit status {status}\n{self.end_of(name)}")
        return self.log(name).read_text(errors="replace")

    def log(self, name: str) -> Path:
        return self.work / "logs" / f"{name}.log"

    def end_of(self, name: str) -> str:
        return self.log(name).read_text(errors="replace")[-3000:]

    def row(self, step: str, seconds: float, gib: float, value: str, ok: bool) -> None:
        self.rows.append((step, seconds, gib, value, ok))
        print(f"{'ok  ' if ok else 'FAIL'} {step}: {value} ({seconds:.1f} s)", flush=True)

    @property
    def size(self) -> str:
        return "32x48" if self.machine.rehearse else "704x1280"

    @property
    def frames(self) -> int:
        return 9 if self.machine.rehearse else 121
