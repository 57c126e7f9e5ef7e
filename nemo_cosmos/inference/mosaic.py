"""Videos of several cameras: one that holds all views, a grid with their names, and one of each camera."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from nemo_cosmos.choices import Stacking
from nemo_cosmos.data.video import video_writer, write_mp4

_DARKEN = 0.35
"""Share of the picture that is left behind a name."""


def camera_file(path: Path, folder: str) -> Path:
    """Where the video of one camera lies beside the one at ``path`` that holds all views."""
    return path.parent / path.stem / f"{folder}{path.suffix}"


def grid_file(path: Path) -> Path:
    """Where the grid lies beside the video at ``path`` that holds all views."""
    return path.with_name(f"{path.stem}_grid{path.suffix}")


def write_cameras(path: Path, views: Tensor, folders: Sequence[str], fps: float, crf: int) -> None:
    """One video of each camera; views (V, 3, T, H, W) uint8."""
    for view, folder in zip(views, folders, strict=True):
        write_mp4(camera_file(path, folder), view, fps, crf)


def write_stacked(path: Path, views: Tensor, stacking: Stacking, fps: float, crf: int) -> None:
    """One video of all views (V, 3, T, H, W) uint8, one after another or one below the other."""
    with video_writer(path, fps, crf) as write:
        if stacking == "time":
            for view in views:
                write(view)
        else:
            for frame in views.unbind(2):
                write(torch.cat(frame.unbind(0), dim=1)[:, None])


def write_grid(
    path: Path,
    views: Tensor,
    names: Sequence[str],
    fps: float,
    crf: int,
    layout: Sequence[Sequence[int]] | None = None,
) -> None:
    """A video of all views side by side, each with the name of its camera in the corner.

    Args:
        path: file to write.
        views: (V, 3, T, H, W) uint8.
        names: of the cameras.
        fps: frame rate.
        crf: constant rate factor.
        layout: numbers of the views in each row; None: as many columns as make the grid about as wide as high.
    """
    rows = near_square(len(names)) if layout is None else layout
    _, _, _, height, width = views.shape
    labels = [_label(name, height, width) for name in names]
    with video_writer(path, fps, crf) as write:
        for frame in views.unbind(2):
            grid = torch.zeros(3, len(rows) * height, max(map(len, rows)) * width, dtype=torch.uint8)
            for y, row in enumerate(rows):
                for x, view in enumerate(row):
                    tile = _named(frame[view], labels[view])
                    grid[:, y * height : (y + 1) * height, x * width : (x + 1) * width] = tile
            write(grid[:, None])


def near_square(count: int) -> list[list[int]]:
    """Numbers from 0 to ``count`` - 1 in rows of one length, the last one possibly shorter: 7 -> 3, 3, 1."""
    columns = math.ceil(math.sqrt(count))
    return [list(range(first, min(first + columns, count))) for first in range(0, count, columns)]


def _named(picture: Tensor, label: Tensor) -> Tensor:
    """(3, H, W) uint8 with a label (h, w) of 0 to 1 in its upper left corner, white on darkened ground."""
    rows, columns = label.shape
    named = picture.clone()
    corner = named[:, :rows, :columns].float() * _DARKEN
    named[:, :rows, :columns] = (corner + (255 - corner) * label).round().to(torch.uint8)
    return named


@cache
def _label(name: str, height: int, width: int) -> Tensor:
    """(h, w) opacity of a name, at most as large as a picture of (height, width)."""
    from PIL import Image, ImageDraw, ImageFont

    size = max(8, height // 24)
    font = ImageFont.load_default(size)
    left, top, right, bottom = font.getbbox(name)
    margin = max(1, size // 4)
    canvas = Image.new("L", (math.ceil(right - left) + 2 * margin, math.ceil(bottom - top) + 2 * margin))
    ImageDraw.Draw(canvas).text((margin - left, margin - top), name, fill=255, font=font)
    return torch.from_numpy(np.asarray(canvas, np.float32) / 255)[:height, :width]
