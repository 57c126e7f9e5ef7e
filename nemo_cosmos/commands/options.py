"""Option types shared by the verbs."""

from __future__ import annotations

from nemo_cosmos.errors import InputError


def parse_size(text: str) -> tuple[int, int]:
    """``HEIGHTxWIDTH`` in pixels -> (height, width); InputError shows the expected form."""
    parts = text.lower().split("x")
    if len(parts) != 2 or not all(part.isdecimal() and int(part) > 0 for part in parts):
        raise InputError(f"size {text!r}: expected HEIGHTxWIDTH in pixels, for example 704x1280")
    return int(parts[0]), int(parts[1])
