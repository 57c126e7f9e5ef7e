"""SIGTERM, SIGINT and SIGUSR1 end a command with status 128 + signal: at once, or where its work is safe.

A handler in Python waits for the main thread to leave what it does in C: a collective whose other ranks are gone, a
write to a slow disk. So a thread hears the signals too, over a pipe, and ends a process that cannot end itself.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
WITH_SAVE = "ending after this step, with a save"
"""What a training says when a signal comes."""
SAVED_AFTER_USR1 = "SIGUSR1: ended at step [0-9]*, which is saved"
"""Pattern of grep for what :meth:`Interrupts.ended_with_save` says of that signal; batch scripts look for it."""
_AT_ONCE = "ended; what is finished is kept"
BURST_SECONDS = 3.0
"""A terminal and torchrun both pass on a Ctrl-C; signals so close together count as one."""
LEAVE_SECONDS = 10.0
"""How long a process may take to leave once it has been told to; torchrun kills after 30."""


class Interrupted(SystemExit):
    """A signal ends the process; what is half-written goes away on its way out, and ``code`` is the exit status."""


class Interrupts:
    """What signals have come, and what becomes of them.

    Attributes:
        received: the first signal's number, 0 before one came.
        leaving: it ended what was going on, at once.
    """

    def __init__(self) -> None:
        self.received = 0
        self.leaving = False
        self._deferring = False
        self._heard: float | None = None
        self._over = False

    def defer(self, notice: str) -> None:
        """From now on a signal is only noted: who works looks at ``received`` and ends in time.

        Args:
            notice: said when a signal comes, after its name.
        """
        self._deferring, self._notice = True, notice

    def stop_deferring(self) -> None:
        """From now on a signal ends the process at once again."""
        self._deferring = False

    @contextlib.contextmanager
    def deferred(self, notice: str) -> Iterator[None]:
        """Defer while this lasts; a signal that nobody inside has looked at ends the process afterwards."""
        self.defer(notice)
        try:
            yield
        finally:
            self.stop_deferring()
        self.end_if_asked()

    @contextlib.contextmanager
    def unbroken(self) -> Iterator[None]:
        """What is done inside is done before a signal ends the process at once."""
        if self._deferring:
            yield
            return
        with self.deferred(_AT_ONCE):
            yield

    def end_if_asked(self) -> None:
        """Raise what ends the process if a signal came while it was deferred."""
        if self.received:
            raise self.ended(self.received)

    def anywhere(self) -> int:
        """The signal that this or any other process of the run has received, 0 for none.

        Collective over all ranks, so that they agree on the step to end at.
        """
        import torch

        if not torch.distributed.is_initialized():
            return self.received
        on_gpu = torch.distributed.get_backend() == "nccl"
        asked = torch.tensor(self.received, device=torch.cuda.current_device() if on_gpu else "cpu")
        torch.distributed.all_reduce(asked, torch.distributed.ReduceOp.MAX)
        return int(asked)

    def ended(self, number: int) -> Interrupted:
        """The exception to raise when the work is safe; the process ends even if its way out is blocked."""
        self._leave_in_time(number)
        return Interrupted(128 + number)

    def ended_with_save(self, number: int, step: int, *, is_first: bool) -> Interrupted:
        """The same after a training's last save, which the first process names."""
        if is_first:
            print(f"{signal.Signals(number).name}: ended at step {step}, which is saved", flush=True)
        return self.ended(number)

    def note(self, number: int, frame: FrameType | None) -> None:
        """The handler, in the main thread."""
        if self.received:
            return
        self.received = number
        if not self._deferring:
            self.leaving = True
            _say(2, f"{signal.Signals(number).name}: {_AT_ONCE}")
            raise Interrupted(128 + number)
        again = "" if self._notice == _AT_ONCE else "; the same again ends at once"
        _say(1 if again else 2, f"{signal.Signals(number).name}: {self._notice}{again}")

    def hear(self, descriptor: int) -> None:
        """The thread: what the main thread may be too busy for. Returns when the pipe is closed."""
        while numbers := os.read(descriptor, 64):
            for number in numbers:
                if number in SIGNALS:
                    self._count(number)
        os.close(descriptor)

    def _count(self, number: int) -> None:
        now = time.monotonic()
        if self._heard is None:
            self._heard = now
            self._leave_in_time(number, lambda: not self._deferring)  # Maybe after the handler has ended it all.
        elif now - self._heard > BURST_SECONDS:
            _say(2, f"{signal.Signals(number).name} again: ended at once")
            os._exit(128 + number)

    def _leave_in_time(self, number: int, due: Callable[[], bool] = lambda: True) -> None:
        timer = threading.Timer(LEAVE_SECONDS, lambda: os._exit(128 + number) if due() and not self._over else None)
        timer.daemon = True
        timer.start()

    def stay(self) -> None:
        """The process goes on after all: somebody has caught what was to end it."""
        self._over = True


def _say(descriptor: int, line: str) -> None:
    """Past Python's buffers, which may be in the middle of a write; once on every machine."""
    if os.environ.get("LOCAL_RANK", "0") == "0":
        with contextlib.suppress(OSError):
            os.write(descriptor, f"{line}\n".encode())


_current: Interrupts | None = None
_restore: dict[int, Any] = {}


@contextlib.contextmanager
def ending_on_signals(*, whole_process: bool = False) -> Iterator[Interrupts]:
    """Handle the signals while this lasts; inside another such context, that one does, and outside the main thread
    nobody.

    Args:
        whole_process: nothing comes after this: an end that is due stays so, and more signals do not hurry it.
    """
    global _current
    if _current is not None:
        yield _current
        return
    interrupts = Interrupts()
    if threading.current_thread() is not threading.main_thread():
        yield interrupts
        return
    end, begin = os.pipe()
    os.set_blocking(begin, False)
    threading.Thread(target=interrupts.hear, args=(end,), name="signals", daemon=True).start()
    wakeup = signal.set_wakeup_fd(begin, warn_on_full_buffer=False)
    _restore.update({number: signal.signal(number, interrupts.note) for number in SIGNALS})
    _current = interrupts
    try:
        yield interrupts
    except Exception:
        if not interrupts.leaving:
            raise
        # An import that was cut short, or a library that turns one exception into another.
        raise Interrupted(128 + interrupts.received) from None
    finally:
        if not (whole_process and interrupts.received):
            interrupts.stay()
            _give_back(wakeup)
            os.close(begin)


def unbroken() -> contextlib.AbstractContextManager[None]:
    """What is done inside is done before a signal ends the process at once."""
    return contextlib.nullcontext() if _current is None else _current.unbroken()


def _give_back(wakeup: int = -1) -> None:
    """Handlers as they were before."""
    global _current
    _current = None
    for number, handler in _restore.items():
        signal.signal(number, signal.SIG_DFL if handler is None else handler)
    _restore.clear()
    signal.set_wakeup_fd(wakeup)


def _leave_to_parent() -> None:
    """A forked child has the handlers and the pipe of its parent, which would take the child's signals for its own."""
    if _current is not None:
        _give_back()


os.register_at_fork(after_in_child=_leave_to_parent)
