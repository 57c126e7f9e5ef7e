"""What the server process imports from which readers start, once for all of them; nothing else imports this module.

A reader whose run ends while it starts has nobody to tell of what went wrong with that.
"""

from __future__ import annotations

import os
import select
import sys
import traceback
from types import TracebackType

_SERVER, _RUN = os.getpid(), os.getppid()
_say = sys.excepthook


def _say_unless_alone(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if not _is_alone(error, trace):
        _say(kind, error, trace)


def _is_alone(error: BaseException, trace: TracebackType | None) -> bool:
    """Whether the run of this process is gone, or was interrupted while it asked for a reader."""
    if os.getpid() == _SERVER:
        return isinstance(error, EOFError) or os.getppid() != _RUN
    for frame, _ in traceback.walk_tb(trace):
        # The run holds the other end of this pipe, over which it also tells the reader what to do.
        if (pipe := frame.f_locals.get("parent_sentinel")) is not None:
            poll = select.poll()
            poll.register(pipe, select.POLLIN)
            return any(event & select.POLLHUP for _, event in poll.poll(0))
    return False


sys.excepthook = _say_unless_alone

import torch  # noqa: E402, F401 - training from shards needs no PyAV

import nemo_cosmos.data.video  # noqa: E402, F401
