"""Processes that read ahead end with the process that they read for, however that ends.

A DataLoader tells its workers to stop only where it can. Killed, it leaves them: those of a fork server have the
server for their parent, and any may wait for ever to hand over what nobody takes.
"""

from __future__ import annotations

import functools
import multiprocessing.forkserver
import multiprocessing.resource_tracker
import os
import select
import signal
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import Any

from torch.utils.data import DataLoader

_POLL_SECONDS = 1.0
_TERM_SECONDS = 60.0
"""How long a reader goes on after SIGTERM: longer than torchrun and Slurm let the step and its save take."""


def reader_options(num_workers: int) -> dict[str, Any]:
    """Arguments of a DataLoader whose readers start from a clean server process: forking one with threads of its own
    can hang."""
    if not num_workers:
        return {}
    _start_server()
    return {
        "num_workers": num_workers,
        "multiprocessing_context": "forkserver",
        "persistent_workers": True,
        "worker_init_fn": end_with_this_process(),
    }


def close_readers(loader: DataLoader[Any] | None) -> None:
    """End the readers of a loader; for ways out on which nobody asks for its batches any more."""
    iterator = getattr(loader, "_iterator", None)
    if iterator is None or not hasattr(iterator, "_shutdown_workers"):
        return
    iterator._shutdown_workers()
    for reader in iterator._workers:
        if reader.is_alive():
            reader.kill()
    assert loader is not None
    loader._iterator = None


def _start_server() -> None:
    """The signals that launchers send to all processes of a run must not end the server under its readers."""
    multiprocessing.resource_tracker.ensure_running()  # On its start it lets SIGTERM through again.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGTERM, signal.SIGUSR1))
    try:
        multiprocessing.forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def end_with_this_process() -> Callable[[int], None]:
    """A ``worker_init_fn`` for the DataLoaders of this process."""
    return functools.partial(_watch, os.getpid())


def _watch(reader_of: int, _worker: int) -> None:
    """Start a thread that ends this process when process ``reader_of`` has ended.

    Signals are for that process: it needs its readers for the step that it finishes.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _end_later)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGTERM, signal.SIGUSR1))
    threading.Thread(target=_end_after, args=(reader_of,), name="end-with-trainer", daemon=True).start()


def _end_later(number: int, frame: FrameType | None) -> None:
    timer = threading.Timer(_TERM_SECONDS, os._exit, (128 + number,))
    timer.daemon = True
    timer.start()


def _end_after(process: int) -> None:
    _wait_for(process)
    # Nobody is left to take results or hear of errors; an orderly end could wait for the queues.
    os._exit(1)


def _wait_for(process: int) -> None:
    """Return when a process has ended, or has ended already."""
    try:
        descriptor = os.pidfd_open(process)
    except ProcessLookupError:
        return
    except (OSError, AttributeError):  # Kernels before 5.3 and some sandboxes have no such call.
        while _alive(process):
            time.sleep(_POLL_SECONDS)
        return
    poll = select.poll()  # `select` refuses descriptors above 1023.
    poll.register(descriptor, select.POLLIN)
    poll.poll()


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # It is there, and another user's.
        pass
    return True
