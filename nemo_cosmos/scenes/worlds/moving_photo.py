"""A camera that moves over a photograph or a wall: pans, zooms, rolls, tilts, and hands that shake."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from nemo_cosmos.scenes.worlds.paths import amount, progress, shake
from nemo_cosmos.scenes.worlds.pictures import Material
from nemo_cosmos.scenes.worlds.stage import Clip, Stage, as_levels, graded, lit

FINER = 2
"""Points per pixel in both directions."""
ATTEMPTS, LEAST_CONTRAST = 5, 0.09
"""Views that are tried for one in which colours deviate by this much."""


@dataclass
class View:
    """Where a camera looks, all (T,): the middle of the frame (x, y) and half its height in units of the picture,
    radians of roll, and how much farther the right and lower edge are than the middle."""

    x: np.ndarray
    y: np.ndarray
    zoom: np.ndarray
    roll: np.ndarray
    tilt_x: np.ndarray
    tilt_y: np.ndarray

    def points(self, stage: Stage, finer: int = FINER) -> Tensor:
        """(T, H, W, 2) of the picture that the pixels see."""
        x, y = stage.points(finer).unbind(-1)
        depth = 1 + stage.over_time(self.tilt_x) * x / stage.aspect + stage.over_time(self.tilt_y) * y
        scale = stage.over_time(self.zoom) / depth
        cos, sin = stage.over_time(np.cos(self.roll)), stage.over_time(np.sin(self.roll))
        across = (cos * x - sin * y) * scale + stage.over_time(self.x)
        down = (sin * x + cos * y) * scale + stage.over_time(self.y)
        return torch.stack([across, down], -1)


def still_view(stage: Stage, zoom: float) -> View:
    """A camera in front of the middle that does not move."""
    nothing = np.zeros(stage.frames)
    return View(nothing, nothing, np.full(stage.frames, zoom), nothing, nothing, nothing)


def seen(stage: Stage, material: Material, view: View) -> Tensor:
    """(3, T, H, W) of a picture on a wall."""
    pixel = stage.pixel / FINER * float(np.median(view.zoom))
    colours = material.at(view.points(stage), pixel)
    frames, height, width = colours.shape[1:]
    pooled = F.avg_pool2d(colours.reshape(1, 3 * frames, height, width), FINER)
    return pooled.view(3, frames, height // FINER, width // FINER)


def sharp_zoom(stage: Stage, material: Material) -> float:
    """Half the height that is seen, in units of the picture: between about a pixel per pixel and the whole."""
    whole = min(1.0, material.picture.aspect / stage.aspect) * 0.97
    least = min(0.9 * stage.size[0] / material.picture.height, whole)
    return math.exp(stage.draw(math.log(least), math.log(whole)))


def draw_view(stage: Stage, material: Material) -> tuple[View, str]:
    """A camera that moves over a part of a picture with something to see, and what to say of it: ``pans left``."""
    for _ in range(ATTEMPTS):
        view, said = _drawn_view(stage, material)
        if contrast(stage, material, view) > LEAST_CONTRAST:
            break
    return view, said


def contrast(stage: Stage, material: Material, view: View) -> float:
    """Deviation of the colours that the first and the last frame see."""
    points = view.points(stage, 1)[[0, -1], ::6, ::6]
    return float(material.at(points, 6 * stage.pixel * float(view.zoom[0])).std(dim=(2, 3)).mean(0).amin())


def _drawn_view(stage: Stage, material: Material) -> tuple[View, str]:
    zoom = sharp_zoom(stage, material)
    view = still_view(stage, zoom)
    room_x = max(material.picture.aspect - zoom * stage.aspect, 0.0)
    room_y = max(1 - zoom, 0.0)
    said = []
    kind = stage.choose(("pan", "pan", "pan", "zoom", "zoom", "roll", "tilt", "pan and zoom", "pan and roll", "hand"))
    if "pan" in kind:
        said.append(_pan(stage, view, room_x, room_y))
    else:
        view.x = view.x + stage.draw(-room_x, room_x)
        view.y = view.y + stage.draw(-room_y, room_y)
    if "zoom" in kind:
        said.append(_zoom(stage, view))
    if "roll" in kind:
        turned = amount(stage, (0.05, 0.7), 0.7) * (1 if stage.chance(0.5) else -1)
        view.roll = view.roll + turned * progress(stage)
        said.append("rolls")
    if kind == "tilt":
        view.tilt_x = stage.draw(-0.3, 0.3) + stage.draw(-0.35, 0.35) * progress(stage)
        view.tilt_y = stage.draw(-0.25, 0.25) + stage.draw(-0.3, 0.3) * progress(stage)
        said.append("turns")
    if kind == "hand" or stage.chance(0.25):
        _shaken(stage, view)
    return view, " and ".join(said) or "moves a little"


def _pan(stage: Stage, view: View, room_x: float, room_y: float) -> str:
    """Along a line, or a bow; says where to."""
    zoom = float(view.zoom[0])
    angle = stage.draw(0, 2 * math.pi) if stage.chance(0.5) else int(stage.random.integers(4)) * math.pi / 2
    way = amount(stage, (0.08, 1.2), 1.1) * zoom
    x, y = way * math.cos(angle), way * math.sin(angle)
    # Where there is room; a picture as high as the frame is panned across, not up.
    x, y = (math.copysign(min(abs(v), 2 * room + 0.1 * zoom), v) for v, room in ((x, room_x), (y, room_y)))
    share = progress(stage)
    bow = stage.draw(-0.25, 0.25) * np.sin(np.pi * share) if stage.chance(0.3) else 0.0
    start_x = stage.draw(*sorted((-room_x - min(x, 0), room_x - max(x, 0))))
    start_y = stage.draw(*sorted((-room_y - min(y, 0), room_y - max(y, 0))))
    view.x, view.y = start_x + x * share - y * bow, start_y + y * share + x * bow
    return f"pans {direction(x, y)}" if abs(share[-1]) > 0.5 else "pans"


def direction(x: float, y: float) -> str:
    """The word for a way in the frame."""
    if abs(x) >= abs(y):
        return "right" if x > 0 else "left"
    return "down" if y > 0 else "up"


def _zoom(stage: Stage, view: View) -> str:
    factor = math.exp(-min(amount(stage, (0.08, 0.9), 0.6), 0.6))
    share, closer = progress(stage), stage.chance(0.6)
    if not closer:
        share = 1 - share
    view.zoom = view.zoom * factor**share
    if abs(share[-1] - share[0]) < 0.5:
        return "zooms"
    return "zooms in" if closer else "zooms out"


def _shaken(stage: Stage, view: View) -> None:
    size = stage.draw(0.005, 0.04)
    view.x = view.x + shake(stage, size) * view.zoom
    view.y = view.y + shake(stage, size) * view.zoom
    view.roll = view.roll + shake(stage, size / 2)


def render_moving_photo(stage: Stage) -> Clip:
    """A camera over one photograph."""
    material = stage.photograph()
    view, said = draw_view(stage, material)
    colours = lit(stage, graded(stage, seen(stage, material, view)))
    return Clip(as_levels(colours), f"the camera {said} over {material.picture.shows}")
