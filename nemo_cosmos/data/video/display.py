"""How a decoded picture is to be shown: turned, mirrored, with pixels that are not square."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from nemo_cosmos.errors import InputError

SQUARE_LIMITS = (Fraction(1, 16), Fraction(16))
"""Pixel aspect ratios beyond these are a damaged header."""
SKEW = 0.02
"""Share of a display matrix's main axis up to which the other axis is rounding."""


@dataclass(frozen=True)
class Display:
    """Geometry of a stream.

    Attributes:
        size: (height, width) as displayed: square pixels, upright.
        transposed: rows and columns are exchanged first,
        flipped: then rows are reversed (top to bottom),
        mirrored: then columns are reversed (left to right).
    """

    size: tuple[int, int]
    transposed: bool = False
    flipped: bool = False
    mirrored: bool = False

    def upright(self, image: np.ndarray) -> np.ndarray:
        """(H, W, 3) as stored -> as displayed, apart from the pixel aspect ratio; a view."""
        image = image.swapaxes(0, 1) if self.transposed else image
        return image[:: -1 if self.flipped else 1, :: -1 if self.mirrored else 1]


def display_of(frame: Any, stream: Any, path: str | Path) -> Display:
    """Geometry by a stream's first frame.

    Raises:
        InputError: the display matrix turns by no multiple of 90 degrees, or the pixel aspect ratio is absurd.
    """
    aspect = Fraction(stream.sample_aspect_ratio or stream.codec_context.sample_aspect_ratio or 1)
    if not SQUARE_LIMITS[0] <= aspect <= SQUARE_LIMITS[1]:
        raise InputError(f"{path}: its pixel aspect ratio is {aspect.numerator}:{aspect.denominator}")
    height, width = frame.height, max(1, round(frame.width * aspect))
    # By name: iterating over unknown kinds of side data is an error in PyAV.
    matrix = frame.side_data.get("DISPLAYMATRIX")
    if matrix is None:
        return Display((height, width))
    transposed, flipped, mirrored = orientation(bytes(matrix), path)
    return Display((width, height) if transposed else (height, width), transposed, flipped, mirrored)


def orientation(matrix: bytes, path: str | Path) -> tuple[bool, bool, bool]:
    """(transposed, flipped, mirrored) of a display matrix: nine native 32-bit integers, rows (a b u) (c d v) (x y w),
    which take (column, row) to (a column + c row, b column + d row).

    Raises:
        InputError: no multiple of 90 degrees.
    """
    a, b, _, c, d, *_ = struct.unpack("=9i", matrix[:36])
    straight, crossed = min(abs(a), abs(d)), min(abs(b), abs(c))
    if not any((a, b, c, d)) or (straight and max(abs(b), abs(c)) <= SKEW * straight):
        return False, d < 0, a < 0
    if crossed and max(abs(a), abs(d)) <= SKEW * crossed:
        return True, b < 0, c < 0
    raise InputError(f"{path}: its display matrix turns by an angle that is no multiple of 90 degrees")
