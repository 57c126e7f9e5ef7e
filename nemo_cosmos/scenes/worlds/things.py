"""Things in front of a picture: an outline filled with a material, shaded, with a shadow, on a way of its own."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from nemo_cosmos.scenes.worlds.outlines import Outline
from nemo_cosmos.scenes.worlds.pictures import Material
from nemo_cosmos.scenes.worlds.stage import Stage, blended

LIGHT = (-0.45, -0.65, 0.61)
"""Where light comes from: left, above, in front."""


@dataclass
class Thing:
    """Something cut out.

    Attributes:
        outline: its shape.
        material: what it is covered with.
        radius: of the unit disc of its outline.
        x, y: (T,) its middle, or one number.
        angle: (T,) radians that it is turned by, or one number.
        scale: (T,) of its size, or one number.
        grain: units of the picture on it per unit of the frame.
        middle: point of the picture at its middle.
        round: 0 flat, 1 as round as a ball, between: a rounded edge.
        shadow: its (x, y) offset, (T,) or one number each, and its strength; None: none.
        soft: share of the radius over which the shadow's edge fades.
        gloss: brightness of the light's reflection.
    """

    outline: Outline
    material: Material
    radius: float
    x: np.ndarray | float
    y: np.ndarray | float
    angle: np.ndarray | float = 0.0
    scale: np.ndarray | float = 1.0
    grain: float = 1.0
    middle: tuple[float, float] = (0.0, 0.0)
    round: float = 0.3
    shadow: tuple[np.ndarray | float, np.ndarray | float, float] | None = (0.04, 0.06, 0.4)
    soft: float = 0.35
    gloss: float = 0.0

    def local(self, stage: Stage, dx: np.ndarray | float = 0.0, dy: np.ndarray | float = 0.0) -> tuple[Tensor, Tensor]:
        """(T, H, W) coordinates on the thing, or on one moved by (dx, dy); the unit disc is its size."""
        x, y = stage.points().unbind(-1)
        x, y = x - stage.over_time(self.x + dx), y - stage.over_time(self.y + dy)
        size = self.radius * np.asarray(self.scale)
        cos, sin = stage.over_time(np.cos(self.angle) / size), stage.over_time(np.sin(self.angle) / size)
        return cos * x + sin * y, cos * y - sin * x

    def size(self, stage: Stage) -> Tensor:
        """(T, 1, 1) radius in the frame."""
        return stage.over_time(self.radius * np.asarray(self.scale))

    def covering(self, stage: Stage, distance: Tensor) -> Tensor:
        """Share 0..1 of each pixel that is inside, from signed distances in radii."""
        return (0.5 - distance * self.size(stage) / (1.2 * stage.pixel)).clamp(0, 1)

    def shade(self, stage: Stage, colours: Tensor) -> tuple[Tensor, Tensor]:
        """The frames with its shadow, and (T, H, W) how dark it is."""
        if self.shadow is None:
            return colours, torch.zeros(1)
        dx, dy, strength = self.shadow
        distance = self.outline(*self.local(stage, dx, dy))
        dark = strength * (0.5 - distance / (2 * self.soft)).clamp(0, 1)
        return colours * (1 - dark), dark

    def paint(self, stage: Stage, colours: Tensor) -> tuple[Tensor, Tensor]:
        """The frames with it, and (T, H, W) how much of each pixel it covers."""
        x, y = self.local(stage)
        distance = self.outline(x, y)
        share = self.covering(stage, distance)
        grain = self.grain * self.radius
        light = self.brightness(stage, distance)
        middle = torch.tensor(self.middle)

        def found(where: Tensor) -> Tensor:
            points = torch.stack([x.flatten()[where], y.flatten()[where]], -1) * grain + middle
            return self.material.at_some(points, stage.pixel * self.grain) * light.flatten()[where] + (
                self.gloss * self._shine(stage).flatten()[where] if self.gloss else 0.0
            )

        return blended(colours, share, found), share

    def brightness(self, stage: Stage, distance: Tensor) -> Tensor:
        """(T, H, W) of a surface that falls off towards the outline."""
        if not self.round:
            return torch.ones_like(distance)
        inward = (-distance / self.round).clamp(0, 1)
        height = (1 - (1 - inward).square()).clamp_min(0).sqrt() * self.round
        step = stage.pixel / self.size(stage)
        across, down = (torch.gradient(height, dim=dim)[0] / step for dim in (2, 1))
        facing = (-across * LIGHT[0] - down * LIGHT[1] + LIGHT[2]) / (1 + across**2 + down**2).sqrt()
        return 0.55 + 0.62 * facing.clamp_min(0)

    def _shine(self, stage: Stage) -> Tensor:
        x, y = stage.points().unbind(-1)
        size = self.size(stage)
        x = (x - stage.over_time(self.x)) / size - LIGHT[0] * 0.6
        y = (y - stage.over_time(self.y)) / size - LIGHT[1] * 0.6
        return torch.exp(-(x * x + y * y) / 0.03)


def put(stage: Stage, colours: Tensor, thing: Thing) -> tuple[Tensor, Tensor]:
    """The frames with a thing and its shadow, and (T, H, W) bool where either shows."""
    colours, dark = thing.shade(stage, colours)
    colours, share = thing.paint(stage, colours)
    return colours, (dark > 0) | (share > 0)
