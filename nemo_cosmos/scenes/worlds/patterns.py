"""Patterns that flow, bend and are lit by moving lights."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from nemo_cosmos.scenes.worlds.moving_photo import direction
from nemo_cosmos.scenes.worlds.paths import amount, progress
from nemo_cosmos.scenes.worlds.pictures import TEXTURES
from nemo_cosmos.scenes.worlds.stage import Clip, Stage, as_levels, graded, lit

BOLD = tuple(name for name in TEXTURES if name not in ("plain", "plaster", "clouds", "facade"))
"""Textures with something to see however they are turned."""


def render_pattern(stage: Stage) -> Clip:
    """One texture, or two in regions that drift, under waves."""
    colours, word, said = _layer(stage)
    if stage.chance(0.5):
        other, _, _ = _layer(stage)
        colours = torch.lerp(colours, other, _regions(stage))
    if stage.chance(0.5):
        colours = colours * _lamp(stage)
    return Clip(as_levels(lit(stage, graded(stage, colours))), f"{word} {said}")


def _layer(stage: Stage) -> tuple[Tensor, str, str]:
    """(3, T, H, W) of a texture in motion, its words, and what it does."""
    material = stage.photograph() if stage.chance(0.2) else stage.texture(*BOLD)
    zoom = math.exp(stage.draw(math.log(0.4), math.log(1.3)))
    share = progress(stage)
    angle = stage.draw(0, 2 * math.pi)
    far = amount(stage, (0.1, 1.2), 1.2)
    x, y = far * math.cos(angle) * share, far * math.sin(angle) * share
    turn = stage.draw(-1, 1) * share if stage.chance(0.3) else np.zeros(stage.frames)
    points = stage.points()
    px, py = points[..., 0] - stage.over_time(x), points[..., 1] - stage.over_time(y)
    cos, sin = stage.over_time(np.cos(turn)), stage.over_time(np.sin(turn))
    px, py = cos * px - sin * py, sin * px + cos * py
    said = f"moves {direction(x[-1], y[-1])}"
    if stage.chance(0.6):
        bend_x, bend_y = _waves(stage, px, py), _waves(stage, px, py)
        px, py = px + bend_x, py + bend_y
        said += " in waves"
    grid = torch.stack([px, py], -1) * zoom + torch.tensor([stage.draw(-1, 1), stage.draw(-1, 1)])
    return material.at(grid, stage.pixel * zoom), material.picture.shows, said


def _waves(stage: Stage, x: Tensor, y: Tensor) -> Tensor:
    """(T, H, W) of two waves that travel."""
    found = torch.zeros(1)
    for _ in range(2):
        across, down = stage.draw(-4, 4), stage.draw(-4, 4)
        size = stage.draw(0.03, 0.22) / (1 + math.hypot(across, down) / 2)
        travel = stage.draw(-1, 1) * amount(stage, (0.5, 5), 5) * np.linspace(0, 1, stage.frames)
        found = found + size * torch.sin(across * x + down * y + stage.over_time(travel + stage.draw(0, 6.3)))
    return found


def _regions(stage: Stage) -> Tensor:
    """(T, H, W) shares of the second texture: stripes or islands with sharp edges that drift."""
    x, y = stage.points().unbind(-1)
    value = _waves(stage, x, y) + _waves(stage, x, y) + stage.draw(-0.03, 0.03)
    across, down = torch.gradient(value.expand(stage.frames, -1, -1), dim=(1, 2))
    steep = torch.hypot(across, down).clamp_min(1e-4)
    return (0.5 + value / steep / 1.2).clamp(0, 1)


def _lamp(stage: Stage) -> Tensor:
    """(T, H, W) brightness of a lamp that wanders."""
    share = progress(stage)
    x = stage.draw(-1, 1) * stage.aspect + stage.draw(-1.5, 1.5) * share
    y = stage.draw(-1, 1) + stage.draw(-1.2, 1.2) * share
    points = stage.points()
    away = (points[..., 0] - stage.over_time(x)) ** 2 + (points[..., 1] - stage.over_time(y)) ** 2
    return 0.55 + stage.draw(0.5, 0.9) * torch.exp(-away / stage.draw(0.3, 1.2))
