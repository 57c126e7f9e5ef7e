"""Real process groups on this machine: processes forked from a server that has imported the package once."""

from __future__ import annotations

import multiprocessing
import os
import socket
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["tests.parallel.preload", "tests.faults.preload"])


def run_processes(world_size: int, target: Callable[..., None], *args: Any, log: Path, timeout: float = 300) -> None:
    """Call ``target(*args)`` in ``world_size`` processes with torchrun's environment; raises with the logs' ends."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        port = server.getsockname()[1]
    log.mkdir(parents=True, exist_ok=True)
    processes = []
    for rank in range(world_size):
        process = CONTEXT.Process(target=_entry, args=(rank, world_size, port, log, target, args))
        process.start()
        processes.append(process)
    for process in processes:
        process.join(timeout)
        if process.is_alive():
            for other in processes:
                other.kill()
    bad = [rank for rank, process in enumerate(processes) if process.exitcode != 0]
    if bad:
        logs = "\n".join(f"--- rank {rank}\n" + (log / f"rank{rank}.log").read_text()[-3000:] for rank in bad)
        raise RuntimeError(f"ranks {bad} of {world_size} failed\n{logs}")


def _entry(rank: int, world_size: int, port: int, log: Path, target: Callable[..., None], args: tuple) -> None:
    stream = (log / f"rank{rank}.log").open("w")
    os.dup2(stream.fileno(), 1)
    os.dup2(stream.fileno(), 2)
    os.environ.update(
        RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(world_size), LOCAL_WORLD_SIZE=str(world_size),
        MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), TORCHELASTIC_RUN_ID="test",
    )  # fmt: skip
    try:
        target(*args)
    except BaseException:
        traceback.print_exc()
        raise SystemExit(1) from None
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
