"""Processes that read ahead end with the process that they read for, however that ends.

A DataLoader tells its workers to stop only where it can. Killed, it leaves them: those of a fork server have the
server for their parent, and any may wait for ever to hand over what nobody takes.
"""

from __future__ import annotations

import contextlib
import functools
import multiprocessing
import multiprocessing.forkserver
import multiprocessing.resource_tracker
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

from torch.utils.data import DataLoader

_SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)
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


def usable_cores() -> int:
    """Cores that this rank may use: those of the machine, or of its share of it, divided by the ranks there."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))


def close_readers(loader: DataLoader[Any] | None, *, at_once: bool = False) -> None:
    """End the readers of a loader; for ways out on which nobody asks for its batches any more.

    Args:
        at_once: do not wait for what they are at.
    """
    iterator = getattr(loader, "_iterator", None)
    if iterator is None or not hasattr(iterator, "_shutdown_workers"):
        return
    if at_once:
        _kill(iterator._workers)
    iterator._shutdown_workers()
    for reader in iterator._workers:
        if reader.is_alive():
            reader.kill()
    assert loader is not None
    loader._iterator = None


def _kill(readers: list[Any]) -> None:
    main = threading.current_thread() is threading.main_thread()
    # The DataLoader's handler would complain.
    before = signal.signal(signal.SIGCHLD, signal.SIG_DFL) if main else None
    for reader in readers:
        reader.kill()
    for reader in readers:
        reader.join()
    if main:
        signal.signal(signal.SIGCHLD, before)


def _start_server() -> None:
    """The signals that launchers send to all processes of a run must not end the server under its readers, nor a
    reader before it knows what to do about them."""
    multiprocessing.resource_tracker.ensure_running()  # On its start it lets SIGTERM through again.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    try:
        multiprocessing.set_forkserver_preload(["__main__", "nemo_cosmos.data.reader_server"])
        with _same_imports():
            multiprocessing.forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextlib.contextmanager
def _same_imports() -> Iterator[None]:
    """A Python started while this lasts finds modules where this one does, not in the working folder first."""
    paths = os.pathsep.join(os.path.abspath(path) for path in sys.path)
    wanted = {"PYTHONPATH": paths, "PYTHONSAFEPATH": "1"}
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update(wanted)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


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
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
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
