"""Option types and endings shared by the verbs and the scripts of `tools/`."""

from __future__ import annotations

from collections.abc import Callable

from nemo_cosmos.ending import run_to_end
from nemo_cosmos.errors import InputError


def parse_size(text: str) -> tuple[int, int]:
    """``HEIGHTxWIDTH`` in pixels -> (height, width); InputError shows the expected form."""
    parts = text.lower().split("x")
    if len(parts) != 2 or not all(part.isdecimal() and int(part) > 0 for part in parts):
        raise InputError(f"size {text!r}: expected HEIGHTxWIDTH in pixels, for example 704x1280")
    return int(parts[0]), int(parts[1])


def run_tool(main: Callable[[], object]) -> None:
    """Run a script of `tools/` or `examples/`; a mistake of the user ends with one line and exit status 2."""
    run_to_end(main)
