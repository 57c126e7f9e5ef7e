"""What a person sees of a generation on standard error."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class _Bars:
    """One bar over the videos and one over the evaluations of the current one."""

    def __init__(self, bars: Any, num_requests: int) -> None:
        self._bars = bars
        self._videos = bars.add_task("videos", total=num_requests) if num_requests > 1 else None
        self._steps = bars.add_task("", total=None)

    def begin(self, name: str) -> None:
        self._bars.reset(self._steps, description=name, total=None)

    def evaluation(self, done: int, total: int) -> None:
        self._bars.update(self._steps, completed=done, total=total)

    def end(self) -> None:
        if self._videos is not None:
            self._bars.advance(self._videos)


@contextmanager
def progress_bars(num_requests: int, *, enabled: bool) -> Iterator[_Bars]:
    """Bars of a job, which only the first of several processes shows."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    console = Console(stderr=True)
    disable = not enabled or os.environ.get("TERM") == "dumb"
    with Progress(*columns, TimeRemainingColumn(), console=console, disable=disable) as bars:
        yield _Bars(bars, num_requests)
