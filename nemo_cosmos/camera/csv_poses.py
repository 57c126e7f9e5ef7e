"""Poses as a table: one line a frame, columns named by the first line."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from nemo_cosmos.camera.rays import swap_axes
from nemo_cosmos.camera.rotations import from_quaternion, to_unit_quaternions
from nemo_cosmos.camera.track import Track, make_track
from nemo_cosmos.errors import InputError
from nemo_cosmos.typed import read_text

POSITION = ("x", "y", "z")
QUATERNION = ("qw", "qx", "qy", "qz")
MATRIX = tuple(f"m{row}{column}" for row in range(3) for column in range(4))
LAST_ROW = ("m30", "m31", "m32", "m33")
INTRINSICS = ("fx", "fy", "cx", "cy")
SIZE = ("width", "height")
OTHER = ("frame", "time")
COLUMNS = (*OTHER, *POSITION, *QUATERNION, *MATRIX, *LAST_ROW, *INTRINSICS, *SIZE)
OTHER_NAMES = {
    "tx": "x", "ty": "y", "tz": "z", "name": "frame", "timestamp": "time", "w": "width", "h": "height",
    "fl_x": "fx", "fl_y": "fy",
}  # fmt: skip
AXES = ("opencv", "opengl")
DEFAULT_FOV = 90.0
"""Degrees that the width of a picture shows where nothing says it: the focal length is half of the width."""


def default_intrinsics(size: tuple[int, int], fov: float = DEFAULT_FOV) -> list[float]:
    """fx, fy, cx, cy in pixels of a camera with square pixels that shows ``fov`` degrees from left to right.

    Raises:
        InputError: degrees that no pinhole camera shows.
    """
    if not 1 <= fov <= 175:
        raise InputError(f"field of view of {fov:g} degrees: expected 1 to 175")
    focal = size[1] / 2 / math.tan(math.radians(fov) / 2)
    return [focal, focal, size[1] / 2, size[0] / 2]


def read_csv_poses(path: Path, size: tuple[int, int] | None = None, fov: float = DEFAULT_FOV) -> Track:
    """The cameras of a CSV file, sorted by ``time`` where that is a column, else in the order of the lines.

    Columns, by the names of the first line, in any order: ``x, y, z, qw, qx, qy, qz``, or the rows of the matrix
    ``m00, m01, ... m23`` (and ``m30`` to ``m33``), camera-to-world; ``frame`` (name or number), ``time`` (seconds);
    ``fx, fy, cx, cy`` with ``width, height``, in pixels. Axes are OpenCV's, or those that a line ``# axes: opengl``
    names before the first line; other lines that begin with ``#`` are comments.

    Args:
        path: the file.
        size: height and width that intrinsics are in where there are no such columns.
        fov: degrees from left to right, where there are no intrinsics.

    Raises:
        InputError: unknown or missing columns, no number, no rotation, a time twice. The message names the line.
    """
    header, rows, axes = _table(path)
    columns = _columns(path, header)
    values = {name: _numbers(path, rows, place, name) for name, place in columns.items() if name != "frame"}
    labels = [f"line {number}" for number, _ in rows]
    names = [row[columns["frame"]].strip() for _, row in rows] if "frame" in columns else labels
    poses = _poses(path, labels, values)
    sizes, intrinsics = _intrinsics(path, values, len(rows), size, fov)
    # The lines' own order stands for a time where there is none, so that frames need no sortable names.
    track = make_track(
        str(path),
        labels,
        swap_axes(poses) if axes == "opengl" else poses,
        intrinsics,
        sizes,
        times=values["time"].tolist() if "time" in values else list(range(len(rows))),
    )
    by_label = dict(zip(labels, names, strict=True))
    times = track.times if "time" in values else None
    return Track([by_label[label] for label in track.names], track.cameras, times)


def _table(path: Path) -> tuple[list[str], list[tuple[int, list[str]]], str]:
    """Header, numbered rows, and axes."""
    axes, header, rows = AXES[0], None, []
    try:
        for number, line in enumerate(io.StringIO(read_text(path)), 1):
            text = line.strip()
            if text.startswith("#"):
                axes = _axes(path, number, text) or axes
            elif text and header is None:
                header = [word.strip().lower() for word in next(csv.reader([text]))]
            elif text and header is not None:
                rows.append((number, next(csv.reader([text]))))
                if len(rows[-1][1]) != len(header):
                    raise InputError(
                        f"{path}, line {number}: {len(rows[-1][1])} values, but {len(header)} columns have names"
                    )
    except csv.Error as error:
        raise InputError(f"{path} is no CSV file: {error}") from error
    if header is None or not rows:
        raise InputError(f"{path}: expected a line with the names of columns, and a line for each frame")
    return header, rows, axes


def _axes(path: Path, number: int, comment: str) -> str | None:
    name, colon, value = comment.lstrip("# ").partition(":")
    if name.strip().lower() != "axes" or not colon:
        return None
    if value.strip().lower() not in AXES:
        raise InputError(f"{path}, line {number}: axes {value.strip()[:40]!r}, expected one of {', '.join(AXES)}")
    return value.strip().lower()


def _columns(path: Path, header: Sequence[str]) -> dict[str, int]:
    """Places of the columns by name."""
    columns: dict[str, int] = {}
    for place, given in enumerate(header):
        name = OTHER_NAMES.get(given, given)
        if name not in COLUMNS:
            raise InputError(
                f"{path}: unknown column {given[:40]!r}; the first line names some of {', '.join(COLUMNS)}"
            )
        if name in columns:
            raise InputError(f"{path}: the column {name!r} is there twice")
        columns[name] = place
    for group in ((*POSITION, *QUATERNION), MATRIX, LAST_ROW, INTRINSICS, SIZE):
        missing = [name for name in group if name not in columns]
        if 0 < len(missing) < len(group):
            raise InputError(f"{path}: the column {missing[0]!r} is missing: expected {', '.join(group)}")
    if ("x" in columns) == ("m00" in columns):
        raise InputError(f"{path}: expected columns {', '.join((*POSITION, *QUATERNION))}, or {', '.join(MATRIX)}")
    return columns


def _numbers(path: Path, rows: list[tuple[int, list[str]]], place: int, name: str) -> Tensor:
    values = []
    for number, row in rows:
        try:
            values.append(float(row[place]))
        except ValueError as error:
            raise InputError(f"{path}, line {number}: {name} is {row[place][:40]!r}, expected a number") from error
    return torch.tensor(values, dtype=torch.float64)


def _poses(path: Path, labels: list[str], values: dict[str, Tensor]) -> Tensor:
    poses = torch.eye(4, dtype=torch.float64).repeat(len(labels), 1, 1)
    if "m00" in values:
        poses[:, :3] = torch.stack([values[name] for name in MATRIX], dim=-1).view(-1, 3, 4)
        if "m30" in values:
            poses[:, 3] = torch.stack([values[name] for name in LAST_ROW], dim=-1)
        return poses
    quaternions = torch.stack([values[name] for name in QUATERNION], dim=-1)
    poses[:, :3, :3] = from_quaternion(to_unit_quaternions(str(path), labels, quaternions))
    poses[:, :3, 3] = torch.stack([values[name] for name in POSITION], dim=-1)
    return poses


def _intrinsics(
    path: Path, values: dict[str, Tensor], count: int, size: tuple[int, int] | None, fov: float
) -> tuple[list[tuple[int, int]], Tensor]:
    """Sizes and (N, 4) intrinsics."""
    if "width" in values:
        sizes = [_size(path, *pair) for pair in zip(values["height"].tolist(), values["width"].tolist(), strict=True)]
    elif size is not None:
        sizes = [size] * count
    else:
        raise InputError(f"{path}: the columns width and height are missing: add the size in pixels of the pictures")
    if "fx" in values:
        return sizes, torch.stack([values[name] for name in INTRINSICS], dim=-1)
    return sizes, torch.tensor([default_intrinsics(one, fov) for one in sizes], dtype=torch.float64)


def _size(path: Path, height: float, width: float) -> tuple[int, int]:
    if not (height.is_integer() and width.is_integer()):
        raise InputError(f"{path}: pictures of {width} x {height}, expected whole numbers of pixels")
    return int(height), int(width)
