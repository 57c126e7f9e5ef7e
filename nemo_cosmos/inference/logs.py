"""What a person sees of this package's messages on the terminal."""

from __future__ import annotations

import logging
import os
import sys


class _StandardError(logging.Handler):
    """Whatever standard error is when a message comes."""

    def emit(self, record: logging.LogRecord) -> None:
        print(self.format(record), file=sys.stderr)


def show_log() -> None:
    """Sends this package's messages to standard error, one plain line each: from INFO on, on other ranks warnings."""
    package, root = logging.getLogger("nemo_cosmos"), logging.getLogger()
    package.setLevel(logging.INFO if os.environ.get("RANK", "0") == "0" else logging.WARNING)
    if not package.handlers:
        handler = _StandardError()
        handler.setFormatter(logging.Formatter("%(message)s"))
        package.addHandler(handler)
    # A library may have set up the root to print as well.
    terminal = (sys.stdout, sys.stderr)
    package.propagate = not any(getattr(handler, "stream", None) in terminal for handler in root.handlers)
