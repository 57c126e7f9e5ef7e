"""Option types and endings shared by the verbs and the scripts of `tools/`."""

from __future__ import annotations

import sys
from collections.abc import Callable

from nemo_cosmos.errors import InputError, explain_os_error, show_any_name


def parse_size(text: str) -> tuple[int, int]:
    """``HEIGHTxWIDTH`` in pixels -> (height, width); InputError shows the expected form."""
    parts = text.lower().split("x")
    if len(parts) != 2 or not all(part.isdecimal() and int(part) > 0 for part in parts):
        raise InputError(f"size {text!r}: expected HEIGHTxWIDTH in pixels, for example 704x1280")
    return int(parts[0]), int(parts[1])


def run_tool(main: Callable[[], None]) -> None:
    """Run a script of `tools/`; a mistake of the user ends with one line on stderr and exit status 2."""
    show_any_name()
    try:
        main()
    except InputError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        sys.exit(2)
    except OSError as error:
        message = explain_os_error(error)
        if message is None:
            raise
        print(f"error: {message}", file=sys.stderr, flush=True)
        sys.exit(2)
