"""Processes that read ahead end with the process that they read for, however that ends.

A DataLoader tells its workers to stop only where it can. Killed, it leaves them: those of a fork server have the
server for their parent, and any may wait for ever to hand over what nobody takes.
"""

from __future__ import annotations

import functools
import os
import select
import threading
import time
from collections.abc import Callable

_POLL_SECONDS = 1.0


def end_with_this_process() -> Callable[[int], None]:
    """A ``worker_init_fn`` for the DataLoaders of this process."""
    return functools.partial(_watch, os.getpid())


def _watch(reader_of: int, _worker: int) -> None:
    """Start a thread that ends this process when process ``reader_of`` has ended."""
    threading.Thread(target=_end_after, args=(reader_of,), name="end-with-trainer", daemon=True).start()


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
