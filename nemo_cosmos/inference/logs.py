"""What a person sees of a generation on the terminal."""

from __future__ import annotations

import logging
import sys


def show_log() -> None:
    """Sends this package's messages, from INFO on, to standard error, one plain line each."""
    package = logging.getLogger("nemo_cosmos")
    package.setLevel(logging.INFO)
    if not package.handlers:
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(logging.Formatter("%(message)s"))
        package.addHandler(handler)
        package.propagate = False
