"""Outlines of things: signed distances of (x, y), negative inside, of shapes about as large as the unit disc."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

Outline = Callable[[Tensor, Tensor], Tensor]


def disc(x: Tensor, y: Tensor) -> Tensor:
    return torch.hypot(x, y) - 1


def ellipse(flat: float) -> Outline:
    """A disc whose height is ``flat`` of its width."""
    return lambda x, y: (torch.hypot(x, y / flat) - 1) * flat


def block(wide: float, high: float, rounded: float = 0.1) -> Outline:
    """A rectangle of half sides ``wide`` and ``high`` with rounded corners."""

    def outline(x: Tensor, y: Tensor) -> Tensor:
        across, down = x.abs() - (wide - rounded), y.abs() - (high - rounded)
        outside = torch.hypot(across.clamp_min(0), down.clamp_min(0))
        return outside + torch.maximum(across, down).clamp_max(0) - rounded

    return outline


def polygon(corners: int) -> Outline:
    """With equal sides, one corner up."""

    def outline(x: Tensor, y: Tensor) -> Tensor:
        sides = [2 * math.pi * (k + 0.5) / corners for k in range(corners)]
        far = [x * math.sin(side) - y * math.cos(side) for side in sides]
        return torch.stack(far).amax(0) - math.cos(math.pi / corners)

    return outline


def star(points: int, depth: float) -> Outline:
    """A disc whose radius falls by ``depth`` between its points."""

    def outline(x: Tensor, y: Tensor) -> Tensor:
        radius = torch.hypot(x, y)
        wave = (torch.atan2(x, -y) * (points / (2 * math.pi))).remainder(1.0)
        return (radius - (1 - depth * (1 - (2 * wave - 1).abs()))) * (1 - depth / 2)

    return outline


def blob(random: np.random.Generator) -> Outline:
    """A disc with waves around it."""
    waves = [(k, float(random.normal(0, 0.16 / k)), float(random.uniform(0, 2 * math.pi))) for k in range(2, 6)]

    def outline(x: Tensor, y: Tensor) -> Tensor:
        angle = torch.atan2(y, x)
        radius = sum((size * torch.cos(k * angle + phase) for k, size, phase in waves), torch.full_like(x, 0.85))
        return torch.hypot(x, y) - radius

    return outline


def ring(width: float) -> Outline:
    """A disc with a hole."""
    return lambda x, y: (torch.hypot(x, y) - 1 + width).abs() - width


def cross(width: float) -> Outline:
    bars = block(1.0, width, 0.05), block(width, 1.0, 0.05)
    return lambda x, y: torch.minimum(bars[0](x, y), bars[1](x, y))


def spoon(x: Tensor, y: Tensor) -> Tensor:
    """A bowl on the left with a handle."""
    bowl = (torch.hypot((x + 0.68) / 0.34, y / 0.24) - 1) * 0.24
    return torch.minimum(bowl, block(0.75, 0.07, 0.06)(x - 0.25, y))


def banana(x: Tensor, y: Tensor) -> Tensor:
    """An arc that is thick in the middle."""
    aside = (torch.atan2(x, y + 0.9) / 0.85).clamp(-1, 1)
    thick = 0.05 + 0.18 * (1 - aside.square())
    arc = (torch.hypot(x, y + 0.9) - 1.15).abs() - thick
    return torch.maximum(arc, torch.maximum(x.abs() - 0.85, -0.5 - y))


def cup(x: Tensor, y: Tensor) -> Tensor:
    """Narrower below, with a handle."""
    wide = 0.72 - 0.16 * (y + 0.9)
    body = torch.maximum(x.abs() - wide, block(2.0, 0.9, 0.2)(x, y))
    handle = (torch.hypot(x - 0.72, y * 0.9) - 0.34).abs() - 0.09
    return torch.minimum(body, handle)


def bottle(x: Tensor, y: Tensor) -> Tensor:
    return torch.minimum(block(0.42, 0.65, 0.15)(x, y - 0.35), block(0.17, 0.5, 0.08)(x, y + 0.55))


def carrot(x: Tensor, y: Tensor) -> Tensor:
    """A cone that lies, its tip on the right."""
    return torch.maximum(y.abs() - 0.24 * (1 - x) / 2 - 0.02, x.abs() - 1)


def segment(
    x: Tensor, y: Tensor, start: tuple[Tensor, Tensor], stop: tuple[Tensor, Tensor], radii: tuple[float, float]
) -> tuple[Tensor, Tensor, Tensor]:
    """A rod between two points, each (T, 1, 1), thick by ``radii`` at its ends.

    Returns:
        Signed distance, share 0..1 along, and share -1..1 across, of each point.
    """
    dx, dy = stop[0] - start[0], stop[1] - start[1]
    length = torch.hypot(dx, dy).clamp_min(1e-6)
    px, py = x - start[0], y - start[1]
    along = ((px * dx + py * dy) / length.square()).clamp(0, 1)
    radius = radii[0] + (radii[1] - radii[0]) * along
    distance = torch.hypot(px - along * dx, py - along * dy) - radius
    across = (py * dx - px * dy) / length / radius
    return distance, along, across.clamp(-1, 1)


SIMPLE: dict[str, Callable[[np.random.Generator], Outline]] = {
    "disc": lambda random: disc,
    "ball": lambda random: disc,
    "square": lambda random: block(0.85, 0.85, 0.08),
    "box": lambda random: block(0.95, float(random.uniform(0.5, 0.75)), 0.1),
    "triangle": lambda random: polygon(3),
    "diamond": lambda random: polygon(4),
    "star": lambda random: star(5, 0.5),
    "ring": lambda random: ring(0.2),
    "cross": lambda random: cross(0.33),
    "patch": blob,
}
"""Outlines that fly through a picture, by the words of captions."""
