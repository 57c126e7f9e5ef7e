"""Option types and endings shared by the verbs and the scripts of `tools/`."""

from __future__ import annotations

import re
from collections.abc import Callable

from nemo_cosmos.ending import run_to_end
from nemo_cosmos.errors import InputError

LARGEST_SIDE = 1 << 14
"""Pixels; also cells of a latent, which are fewer."""
LARGEST_SEED = (1 << 63) - 1


def parse_size(text: str) -> tuple[int, int]:
    """``HEIGHTxWIDTH`` in pixels -> (height, width); InputError shows the expected form."""
    height, width = parse_sides(
        text, 2, f"--size {text[:40]!r}: expected HEIGHTxWIDTH in pixels, for example 704x1280"
    )
    return height, width


def parse_sides(text: str, count: int, otherwise: str) -> list[int]:
    """``AxBxC`` -> whole numbers from 1 to :data:`LARGEST_SIDE`; InputError begins with ``otherwise``."""
    parts = text.lower().split("x")
    if len(parts) != count or not all(re.fullmatch("[0-9]{1,9}", part) for part in parts):
        raise InputError(otherwise)
    sides = list(map(int, parts))
    if not 1 <= min(sides) <= max(sides) <= LARGEST_SIDE:
        raise InputError(f"{otherwise}, each from 1 to {LARGEST_SIDE}")
    return sides


def run_tool(main: Callable[[], object]) -> None:
    """Run a script of `tools/` or `examples/`; a mistake of the user ends with one line and exit status 2."""
    run_to_end(main)
