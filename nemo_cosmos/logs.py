"""What a person sees of this package's messages on the terminal."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from collections.abc import Iterator


class _StandardError(logging.Handler):
    """Whatever standard error is when a message comes."""

    def emit(self, record: logging.LogRecord) -> None:
        print(self.format(record), file=sys.stderr)


@contextlib.contextmanager
def log_shown() -> Iterator[None]:
    """This package's messages on standard error, one plain line each: from INFO on, on other ranks warnings."""
    package, root = logging.getLogger("nemo_cosmos"), logging.getLogger()
    before = package.level, package.propagate
    handler = _StandardError()
    handler.setFormatter(logging.Formatter("%(message)s"))
    package.addHandler(handler)
    package.setLevel(logging.INFO if os.environ.get("RANK", "0") == "0" else logging.WARNING)
    # A library may have set up the root to print as well.
    terminal = (sys.stdout, sys.stderr)
    package.propagate = not any(getattr(other, "stream", None) in terminal for other in root.handlers)
    try:
        yield
    finally:
        package.removeHandler(handler)
        package.setLevel(before[0])
        package.propagate = before[1]
