"""Pictures of a trajectory and of its rays, so that a wrong convention is seen before it is trained on."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from nemo_cosmos.camera.rays import Cameras, rays, relative
from nemo_cosmos.data.images import write_image
from nemo_cosmos.errors import InputError

if TYPE_CHECKING:
    from PIL import ImageDraw, ImageFont

FRUSTA = 9
"""Cameras that are drawn as pyramids, from the first to the last."""
SMOOTHING = 3
"""Pixels drawn per pixel shown, along a side."""
INK, SOFT, GRID = (28, 33, 38), (93, 104, 115), (221, 226, 231)
FIRST, LAST = (31, 119, 180), (214, 39, 40)
"""Colours of the first and the last camera."""
CHANNEL_NAMES = ("d x", "d y", "d z", "m x", "m y", "m z")
"""Of the Plücker channels: direction, then moment."""
STRIP_HEIGHT = 56
STRIP_FRAMES = 8
LABEL_WIDTH = 44
PANEL = (360, 400)
"""Height and width of one view of a trajectory."""
_YAW, _PITCH = math.radians(35), math.radians(28)
VIEWS: dict[str, list[list[float]]] = {
    "from behind on the right, above": [
        [math.cos(_YAW), 0, math.sin(_YAW)],
        [math.sin(_YAW) * math.sin(_PITCH), math.cos(_PITCH), -math.cos(_YAW) * math.sin(_PITCH)],
    ],
    "from above (forwards is up)": [[1, 0, 0], [0, 0, -1]],
    "from the right (forwards is right)": [[0, 0, 1], [0, 1, 0]],
}
"""By title: which parts of x (right), y (down) and z (forwards) go to the right and down in the picture."""


def trajectory_picture(cameras: Cameras) -> Tensor:
    """(3, H, W) uint8 picture of the cameras, relative to the first, in three views: path, frusta, axes.

    Colours go from blue, the first camera, to red, the last; a bar shows the upper edge of each frustum.
    """
    seen = relative(cameras)
    centres = seen.poses[:, :3, 3]
    reach = float(centres.norm(dim=-1).max())
    corners = _frusta(seen, 0.22 * reach if reach > 1e-8 else 1.0)
    views = [_view(title, torch.tensor(axes).double(), centres, corners) for title, axes in VIEWS.items()]
    return torch.cat([torch.cat(views, dim=2), _caption(summary(seen), PANEL[1] * len(views))], dim=1)


def _frusta(cameras: Cameras, depth: float) -> dict[int, Tensor]:
    """By frame: (5, 3) centre of the camera, and the corners of its picture at a depth, from the upper left on."""
    height, width = cameras.size
    pixels = torch.tensor([[0.0, 0.0], [width, 0.0], [width, height], [0.0, height]])
    found = {}
    for frame in _evenly(len(cameras), FRUSTA):
        camera = cameras[[frame]]
        directions = rays(camera, pixels)[0, :, :3]
        ahead = directions @ camera.poses[0, :3, 2]
        centre = camera.poses[0, :3, 3]
        found[frame] = torch.cat([centre[None], centre + depth * directions / ahead[:, None]])
    return found


def _evenly(count: int, most: int) -> list[int]:
    """Up to ``most`` numbers below ``count``, from 0 to the last."""
    shown = min(count, most)
    return sorted({round(i * (count - 1) / max(shown - 1, 1)) for i in range(shown)})


def summary(cameras: Cameras) -> str:
    """One line: frames, size, width of the view, length of the path, and how far the camera goes and turns."""
    cameras = relative(cameras)
    reach = float(cameras.poses[:, :3, 3].norm(dim=-1).max())
    path = float((cameras.poses[1:, :3, 3] - cameras.poses[:-1, :3, 3]).norm(dim=-1).sum())
    trace = cameras.poses[:, :3, :3].diagonal(dim1=1, dim2=2).sum(-1)
    turned = math.degrees(float((((trace - 1) / 2).clamp(-1, 1)).acos().max()))
    height, width = cameras.size
    fov = math.degrees(2 * math.atan(width / 2 / float(cameras.intrinsics[0, 0])))
    return (
        f"{len(cameras)} frames of {width} x {height}, {fov:.1f} degrees wide; path {path:.4g}, furthest {reach:.4g}, "
        f"turned by up to {turned:.1f} degrees"
    )


def _view(title: str, axes: Tensor, centres: Tensor, frusta: dict[int, Tensor]) -> Tensor:
    """One panel; ``axes`` (2, 3) project to right and down."""
    from PIL import Image, ImageDraw

    height, width = (side * SMOOTHING for side in PANEL)
    shown = torch.cat([centres, *frusta.values()]) @ axes.T
    low, high = shown.amin(0), shown.amax(0)
    margin = 34 * SMOOTHING
    scale = float(((torch.tensor([width, height]) - 2 * margin) / (high - low).clamp(min=1e-9)).min())
    middle = torch.tensor([width, height]) / 2

    def place(points: Tensor) -> list[tuple[float, float]]:
        flat = (points @ axes.T - (low + high) / 2) * scale + middle
        return [(float(x), float(y)) for x, y in flat]

    image = Image.new("RGB", (width, height), "white")
    draw = ImageDraw.Draw(image)
    for axis in torch.eye(3, dtype=torch.float64):
        length = 0.5 * float((high - low).max())
        draw.line(place(torch.stack([torch.zeros(3).double(), axis * length])), GRID, SMOOTHING)
    draw.line(place(centres), SOFT, 2 * SMOOTHING)
    for frame in reversed(frusta):
        _draw_frustum(draw, place(frusta[frame]), _between(frame / max(len(centres) - 1, 1)))
    small = image.resize((PANEL[1], PANEL[0]), Image.Resampling.LANCZOS)
    draw = ImageDraw.Draw(small)
    draw.text((10, 8), title, INK, font=_font())
    for axis, name in zip(torch.eye(3, dtype=torch.float64), "xyz", strict=True):
        ((x, y),) = place(axis[None] * 0.5 * float((high - low).max()))
        if torch.linalg.vector_norm(axes @ axis) > 0.1:
            draw.text((x / SMOOTHING + 3, y / SMOOTHING - 6), name, SOFT, font=_font())
    return _to_tensor(small)


def _draw_frustum(draw: ImageDraw.ImageDraw, points: list[tuple[float, float]], colour: tuple[int, int, int]) -> None:
    centre, *corners = points
    for corner in corners:
        draw.line([centre, corner], colour, SMOOTHING)
    draw.line([*corners, corners[0]], colour, SMOOTHING)
    draw.line(corners[:2], colour, 4 * SMOOTHING)
    x, y = centre
    radius = 2.5 * SMOOTHING
    draw.ellipse([x - radius, y - radius, x + radius, y + radius], fill=colour)


def _between(share: float) -> tuple[int, int, int]:
    return tuple(round(a + (b - a) * share) for a, b in zip(FIRST, LAST, strict=True))  # type: ignore[return-value]


def channel_pictures(plucker: Tensor, frames: int = STRIP_FRAMES) -> list[Tensor]:
    """(3, rows, columns) uint8 picture of each of the six channels: frames from first to last side by side.

    Blue is negative, white zero, red positive; full colour is 1 for directions, the largest moment for moments.

    Args:
        plucker: (6, T, h, w).
        frames: how many frames are shown at most.
    """
    picked = plucker[:, _evenly(plucker.shape[1], frames)].float()
    largest = float(picked[3:].abs().max()) or 1.0
    scaled = torch.cat([picked[:3], picked[3:] / largest]).nan_to_num().clamp(-1, 1)
    enlarged = max(1, round(STRIP_HEIGHT / plucker.shape[2]))
    return [_diverging(torch.cat(list(channel), dim=1), enlarged) for channel in scaled]


def _diverging(values: Tensor, enlarged: int) -> Tensor:
    """(h, w) from -1 to 1 -> (3, h, w) uint8 times ``enlarged``, each cell a square."""
    ends = torch.tensor([FIRST, LAST], dtype=torch.float32)
    colour = torch.where((values < 0)[..., None], ends[0], ends[1])
    picture = 255 + values.abs()[..., None] * (colour - 255)
    picture = picture.repeat_interleave(enlarged, 0).repeat_interleave(enlarged, 1)
    return picture.round().to(torch.uint8).permute(2, 0, 1)


def rays_picture(plucker: Tensor, frames: int = STRIP_FRAMES) -> Tensor:
    """(3, H, W) uint8: the six of :func:`channel_pictures` below each other with their names."""
    rows = []
    for name, strip in zip(CHANNEL_NAMES, channel_pictures(plucker, frames), strict=True):
        label = _caption(name, LABEL_WIDTH, strip.shape[1])
        rows.append(torch.nn.functional.pad(torch.cat([label, strip], dim=2), (0, 8, 4, 4), value=255))
    return torch.cat(rows, dim=1)


def stacked(pictures: Sequence[Tensor]) -> Tensor:
    """(3, H, W) pictures below each other, white at their right sides."""
    width = max(picture.shape[2] for picture in pictures)
    padded = [torch.nn.functional.pad(one, (0, width - one.shape[2]), value=255) for one in pictures]
    return torch.cat(padded, dim=1)


def write_plot(path: Path, cameras: Cameras, plucker: Tensor | None = None) -> None:
    """A PNG or JPEG of a trajectory, below it the channels of its rays where they are given.

    Raises:
        InputError: another kind of file.
    """
    if path.suffix.lower() not in (".png", ".jpg", ".jpeg"):
        raise InputError(f"{path}: a plot is written as .png or .jpg")
    pictures = [trajectory_picture(cameras)]
    if plucker is not None:
        pictures.append(rays_picture(plucker))
    path.parent.mkdir(parents=True, exist_ok=True)
    write_image(path, stacked(pictures))


def _caption(text: str, width: int, height: int = 28) -> Tensor:
    from PIL import Image, ImageDraw

    image = Image.new("RGB", (width, height), "white")
    ImageDraw.Draw(image).text((10, height // 2 - 7), text, SOFT, font=_font())
    return _to_tensor(image)


def _font() -> ImageFont.ImageFont | ImageFont.FreeTypeFont:
    from PIL import ImageFont

    return ImageFont.load_default(12)


def _to_tensor(image: object) -> Tensor:
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous()
