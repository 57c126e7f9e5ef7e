"""One process at a time in a folder: a lock that ends with the process that holds it, however that ends."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import logging
import os
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from nemo_cosmos.errors import InputError

logger = logging.getLogger(__name__)
LOCK_NAME = ".prepare.lock"
TRAINING_LOCK = ".train.lock"
_UNSUPPORTED = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)
_held: set[int] = set()
"""Descriptors of the locks of this process."""


def _close_in_child() -> None:
    """A forked worker that outlives its killed parent for a while would hold the lock on."""
    for descriptor in _held:
        os.close(descriptor)
    _held.clear()


os.register_at_fork(after_in_child=_close_in_child)


@contextlib.contextmanager
def lock_folder(folder: Path, name: str = LOCK_NAME, *, use: str = "is being prepared") -> Iterator[None]:
    """Hold ``folder/name``; the file goes when the lock is released.

    The kernel releases the lock of a process that was killed, so that a file left behind hinders nobody.

    Raises:
        InputError: another process holds it; the message names the process.

    Args:
        use: what the other process does with the folder, for the message.
    """
    path = folder / name
    descriptor = _acquire(path, use)
    _held.add(descriptor)
    try:
        holder = {"pid": os.getpid(), "host": socket.gethostname(), "since": time.strftime("%Y-%m-%d %H:%M:%S")}
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, json.dumps(holder).encode(), 0)
        yield
    finally:
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)
        _held.discard(descriptor)
        os.close(descriptor)


@contextlib.contextmanager
def share_folder(folder: Path, when_alone: Callable[[], None]) -> Iterator[None]:
    """Be one of several processes that write into a folder; ``when_alone`` is called first where there is no other.

    The lock is on the folder itself and leaves no file. Where the file system has none, nobody knows to be alone.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with contextlib.suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            when_alone()
        with contextlib.suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_SH)
        yield
    finally:
        os.close(descriptor)


def _acquire(path: Path, use: str) -> int:
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = _holder(descriptor)
            os.close(descriptor)
            raise InputError(f"{path.parent} {use} by {holder}: wait until that has ended") from error
        except OSError as error:
            if error.errno not in _UNSUPPORTED:
                os.close(descriptor)
                raise
            logger.warning("%s: this file system has no locks; start one call at a time", path.parent)
            return descriptor
        # Whoever held the lock may have deleted the file between the two calls: then the lock is on no name.
        with contextlib.suppress(FileNotFoundError):
            if os.stat(path).st_ino == os.fstat(descriptor).st_ino:
                return descriptor
        os.close(descriptor)


def _holder(descriptor: int) -> str:
    try:
        values: dict[str, Any] = json.loads(os.pread(descriptor, 1000, 0))
        return f"process {values['pid']} on {values['host']} since {values['since']}"
    except (ValueError, KeyError, TypeError):
        return "another process"  # that has taken the lock just now and not written its name yet
