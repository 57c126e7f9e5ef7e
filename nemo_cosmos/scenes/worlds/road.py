"""Driving along a road between walls, with signs and vehicles at its sides, below a far picture."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from nemo_cosmos.scenes.textures import COLOURS
from nemo_cosmos.scenes.worlds.paths import progress, shake
from nemo_cosmos.scenes.worlds.pictures import Material
from nemo_cosmos.scenes.worlds.stage import Clip, Stage, as_levels, graded, lit

NEAR, FAR = 0.8, 200.0
"""Metres ahead between which anything is seen."""


@dataclass
class Drive:
    """The camera: all (T,), lengths in metres, angles in radians, and tangents of half the view's height.

    Attributes:
        x: to the right of the road's middle.
        z: ahead.
        yaw: to the right.
        up: height above the road, one number.
        horizon: y of the horizon in the frame.
        view: tangent of half the view's height.
    """

    x: np.ndarray
    z: np.ndarray
    yaw: np.ndarray
    up: float
    horizon: np.ndarray
    view: float

    def rays(self, stage: Stage) -> tuple[Tensor, Tensor, Tensor]:
        """(T, H, W) directions to the right, downwards and ahead."""
        x, y = stage.points().unbind(-1)
        across, down = x * self.view, (y - stage.over_time(self.horizon)) * self.view
        cos, sin = stage.over_time(np.cos(self.yaw)), stage.over_time(np.sin(self.yaw))
        return cos * across + sin, down, cos - sin * across


def draw_drive(stage: Stage) -> tuple[Drive, str]:
    """Forward, sometimes backward or standing, swaying a little; and what to say of it."""
    speed = stage.draw(2.0, 14.0)
    way = min(speed * stage.seconds[-1], 25.0)
    back = stage.chance(0.15)
    share = progress(stage)
    z = way * (1 - share if back else share)
    turn = stage.draw(-0.25, 0.25) * share if stage.chance(0.4) else 0.0
    yaw = stage.draw(-0.15, 0.15) + turn + shake(stage, 0.004)
    x = stage.draw(-1.2, 1.2) + stage.draw(-0.8, 0.8) * share
    horizon = stage.draw(-0.3, 0.15) + shake(stage, 0.006)
    drive = Drive(x, z, yaw, stage.draw(1.1, 2.0), horizon, stage.draw(0.35, 0.6))
    ends = share[-1] - share[0]
    return drive, "moves" if abs(ends) < 0.5 else "drives backward" if back else "drives forward"


def render_road(stage: Stage) -> Clip:
    """A camera on a car."""
    drive, said = draw_drive(stage)
    rays = drive.rays(stage)
    colours = _sky(stage, drive, rays)
    haze = torch.tensor(stage.random.uniform(0.55, 0.85, 3), dtype=torch.float32).view(3, 1, 1, 1)
    fog = stage.draw(50.0, 300.0)
    road, name = _road_material(stage)
    colours = _ground(stage, drive, rays, colours, road, (haze, fog))
    walls = stage.chance(0.75)
    if walls:
        for side in (-1, 1):
            if stage.chance(0.85):
                colours = _wall(stage, drive, rays, colours, side, (haze, fog))
    boards = sorted(stage.draw(4, 50) for _ in range(int(stage.random.integers(2, 7))))
    for ahead in reversed(boards):
        colours = _board(stage, drive, rays, colours, ahead, (haze, fog))
    words = f"the camera {said} on a {name}{' between walls' if walls else ''}"
    return Clip(as_levels(lit(stage, graded(stage, colours))), words)


def _road_material(stage: Stage) -> tuple[Material, str]:
    if stage.chance(0.55):
        return stage.painted(stage.texture("asphalt"), COLOURS["grey"], 0.8), "street"
    return stage.photograph("gravel", "a tiled wall", "grass") if stage.chance(0.6) else stage.texture(
        "pavement", "tiled", "leaves", "wooden"
    ), "road"


def _sky(stage: Stage, drive: Drive, rays: tuple[Tensor, Tensor, Tensor]) -> Tensor:
    """What is far away turns with the camera alone."""
    material = (
        stage.photograph("a house", "a rocket", "stars", "a man and a camera")
        if stage.chance(0.6)
        else (stage.texture("clouds"))
    )
    right, down, ahead = rays
    size = stage.draw(0.5, 0.9) / drive.view
    points = torch.stack([right / ahead * size, down / ahead * size + stage.draw(0.2, 0.6)], -1)
    return material.at(points, stage.pixel * drive.view * size)


def _seen(
    stage: Stage,
    material: Material,
    points: Tensor,
    distance: Tensor,
    grain: float,
    air: tuple[Tensor, float],
    view: float,
) -> Tensor:
    """Colours of a surface at distances in metres, through hazy air; ``grain``: units of the picture per metre."""
    pixels = distance * (stage.pixel * view * grain)
    colours = material.at_sizes(points * grain, pixels)
    haze, fog = air
    return torch.lerp(haze.expand_as(colours), colours, torch.exp(-distance / fog))


def _ground(
    stage: Stage, drive: Drive, rays: tuple[Tensor, Tensor, Tensor], colours: Tensor, material: Material,
    air: tuple[Tensor, float],
) -> Tensor:  # fmt: skip
    right, down, ahead = rays
    distance = (drive.up / down.clamp_min(1e-3)).clamp(0, FAR)
    points = torch.stack(
        [stage.over_time(drive.x) + right * distance, -stage.over_time(drive.z) - ahead * distance], -1
    )
    grain = 0.2 if material.picture.name.startswith("asphalt") else stage.draw(0.35, 0.9)
    # What is far is seen at a low angle: along the way a pixel covers more than across it.
    found = _seen(stage, material, points, distance * (1 + distance / (4 * drive.up)), grain, air, drive.view)
    share = (0.5 + down / (stage.pixel * drive.view)).clamp(0, 1)
    return torch.lerp(colours, found, share)


def _wall(
    stage: Stage,
    drive: Drive,
    rays: tuple[Tensor, Tensor, Tensor],
    colours: Tensor,
    side: int,
    air: tuple[Tensor, float],
) -> Tensor:
    """Houses or a fence along one side."""
    place, top = side * stage.draw(3.5, 8.0), stage.draw(1.5, 9.0)
    material = stage.texture("facade", "facade", "brick", "leaves", "wooden", "plaster")
    if stage.chance(0.3):
        material = stage.photograph("a house", "a tiled wall", "a cup on a table", "a flower")
    right, down, ahead = rays
    toward = (right * side).clamp_min(1e-3)
    distance = (abs(place) - side * stage.over_time(drive.x)) / toward
    distance = distance.clamp(0, FAR)
    height = drive.up - down * distance
    points = torch.stack([stage.over_time(drive.z) + ahead * distance, -height], -1)
    found = _seen(stage, material, points, distance * (1 + distance / 20), stage.draw(0.2, 0.4), air, drive.view)
    edge = distance.clamp_min(0.1) * stage.pixel * drive.view
    share = (0.5 + torch.minimum(top - height, height) / edge).clamp(0, 1)
    share = share * (right * side > 0) * (ahead * distance > NEAR / 4) * (distance < FAR * 0.95)
    return torch.lerp(colours, found * stage.draw(0.75, 1.05), share)


def _board(
    stage: Stage,
    drive: Drive,
    rays: tuple[Tensor, Tensor, Tensor],
    colours: Tensor,
    place: float,
    air: tuple[Tensor, float],
) -> Tensor:
    """Something upright across the way: a sign, a van, a tree; some of them drive along."""
    half, top = stage.draw(0.4, 1.5), stage.draw(1.0, 3.2)
    middle = (1 if stage.chance(0.5) else -1) * stage.draw(1.6, 4.5)
    low = 0.0 if stage.chance(0.75) else top * 0.5
    material = stage.material(0.75)
    moves = stage.draw(-6, 6) * stage.seconds if stage.chance(0.25) else 0.0
    right, down, ahead = rays
    gap = stage.over_time(place + moves - drive.z)
    distance = gap.clamp_min(NEAR) / ahead.clamp_min(0.2)
    across = stage.over_time(drive.x) + right * distance - middle
    height = drive.up - down * distance
    edge = distance * stage.pixel * drive.view
    inside = torch.minimum(half - across.abs(), torch.minimum(top - height, height - low))
    share = (0.5 + inside / edge).clamp(0, 1) * (gap > NEAR)
    points = torch.stack([across, (low + top) / 2 - height], -1)
    # A shadow on the road below it.
    under = ((0.3 - (height / 0.25).abs()).clamp(0, 1) * (across.abs() < half) * (gap > NEAR)) if not low else 0.0
    found = _seen(stage, material, points, distance, 1.6 / max(top - low, half), air, drive.view)
    return torch.lerp(colours * (1 - under), found, share)
