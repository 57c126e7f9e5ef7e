"""Textured rectangles and boxes, and the arrays that the ray caster reads of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from nemo_cosmos.scenes.textures import Atlas

Vector = tuple[float, float, float]
STILL: Vector = (0.0, 0.0, 0.0)


@dataclass(frozen=True)
class Surface:
    """A rectangle that is seen from the side that ``along`` x ``up`` points to.

    Attributes:
        corner: where the texture begins, in metres.
        along: the side along which the texture's columns run, in metres.
        up: the side along which its rows run, at a right angle to ``along``.
        texture: name in the scene's textures.
        tile: metres that one repetition of the texture covers along both sides; None: once over the rectangle.
        label: what it belongs to, for captions; "" for what goes without saying.
        velocity: metres per second.
    """

    corner: Vector
    along: Vector
    up: Vector
    texture: str
    tile: tuple[float, float] | None = None
    label: str = ""
    velocity: Vector = STILL


@dataclass(frozen=True)
class Placed:
    """All surfaces of a scene at one instant, S of them; float64.

    Attributes:
        corner, along, up, normal: (S, 3); ``normal`` has length 1.
        corners: (S, 4, 3) in metres.
    """

    corner: np.ndarray
    along: np.ndarray
    up: np.ndarray
    normal: np.ndarray
    corners: np.ndarray


@dataclass(frozen=True)
class Light:
    """What shines on the surfaces: the brightness of a point does not depend on who looks at it.

    Attributes:
        ambient: brightness where no lamp shines.
        sun: (3,) direction towards the sun; its length is the brightness that it adds.
        lamp: (3,) position of a lamp, or None.
        reach: metres at which the lamp is half as bright as nearby.
    """

    ambient: float
    sun: Vector = STILL
    lamp: Vector | None = None
    reach: float = 4.0

    def on(self, points: np.ndarray, normals: np.ndarray) -> np.ndarray:
        """(N, 3) points and (N, 3) unit normals -> (N,) brightness."""
        value = self.ambient + np.maximum(normals @ np.array(self.sun), 0)
        if self.lamp is not None:
            way = np.array(self.lamp) - points
            far = np.sqrt((way * way).sum(-1))
            facing = np.abs((way * normals).sum(-1)) / np.maximum(far, 1e-6)
            value = value + (0.35 + 0.65 * facing) * (1 - self.ambient) / (1 + (far / self.reach) ** 2)
        return value


@dataclass(frozen=True)
class Scene:
    """Surfaces with their textures.

    Attributes:
        surfaces: in any order.
        atlas: the textures that they name.
        light: what shines on them.
        background: RGB in 0..255 where no surface is.
    """

    surfaces: Sequence[Surface]
    atlas: Atlas
    light: Light
    background: tuple[float, float, float] = (0.0, 0.0, 0.0)
    _placed: dict[float, Placed] = field(default_factory=dict, repr=False)

    @cached_property
    def texture_ids(self) -> np.ndarray:
        """(S,) index of each surface's texture in the atlas."""
        return np.array([self.atlas.ids[surface.texture] for surface in self.surfaces])

    @cached_property
    def repeats(self) -> np.ndarray:
        """(S, 2) repetitions of the texture along both sides."""
        tiles = [s.tile or lengths for s, lengths in zip(self.surfaces, self._lengths, strict=True)]
        return self._lengths / np.array([tuple(tile) for tile in tiles])

    @cached_property
    def density(self) -> np.ndarray:
        """(S,) repetitions of the texture per metre, of the side that has more."""
        return (self.repeats / self._lengths).max(-1)

    @cached_property
    def _lengths(self) -> np.ndarray:
        """(S, 2) metres along both sides."""
        return np.array([[math.dist(STILL, side) for side in (s.along, s.up)] for s in self.surfaces])

    @cached_property
    def moves(self) -> bool:
        return any(surface.velocity != STILL for surface in self.surfaces)

    def at(self, time: float) -> Placed:
        """The surfaces at ``time`` seconds."""
        time = time if self.moves else 0.0
        if time not in self._placed:
            self._placed.clear()
            self._placed[time] = self._place(time)
        return self._placed[time]

    def _place(self, time: float) -> Placed:
        corner, along, up, velocity = (
            np.array([getattr(surface, name) for surface in self.surfaces], np.float64)
            for name in ("corner", "along", "up", "velocity")
        )
        corner = corner + velocity * time
        normal = np.cross(along, up)
        normal /= np.sqrt((normal * normal).sum(-1, keepdims=True))
        corners = np.stack([corner, corner + along, corner + along + up, corner + up], 1)
        return Placed(corner, along, up, normal, corners)


def box(
    centre: tuple[float, float],
    base: float,
    size: Vector,
    sides: str,
    top: str,
    *,
    yaw: float = 0.0,
    tile: tuple[float, float] | None = None,
    top_tile: tuple[float, float] | None = None,
    ends: str | None = None,
    label: str = "",
    velocity: Vector = STILL,
) -> list[Surface]:
    """The five visible faces of a box that stands upright.

    Args:
        centre: (x, y) of its middle.
        base: z of its lower face.
        size: length along its own x axis, width, height.
        sides: texture of the four upright faces; ``ends``: of those that close its length, where it differs.
        top: texture of the upper face.
        yaw: radians that it is turned by about the vertical.
    """
    length, width, height = size
    ahead, left = np.array([math.cos(yaw), math.sin(yaw), 0.0]), np.array([-math.sin(yaw), math.cos(yaw), 0.0])
    middle = np.array([*centre, base])
    upright = np.array([0.0, 0.0, height])
    faces = []
    for outward, half, run, texture in (
        (ahead, length, left * width, ends or sides),
        (left, width, -ahead * length, sides),
        (-ahead, length, -left * width, ends or sides),
        (-left, width, ahead * length, sides),
    ):
        corner = middle + outward * half / 2 - run / 2
        faces.append((corner, run, upright, texture, tile))
    corner = middle + upright - ahead * length / 2 - left * width / 2
    faces.append((corner, ahead * length, left * width, top, top_tile if top_tile is not None else tile))
    return [
        Surface(_vector(corner), _vector(run), _vector(rise), texture, repeat, label, velocity)
        for corner, run, rise, texture, repeat in faces
    ]


def _vector(values: np.ndarray) -> Vector:
    x, y, z = (float(value) for value in values)
    return x, y, z
