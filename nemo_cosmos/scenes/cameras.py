"""Pinhole cameras and their poses.

Poses are camera-to-world matrices with the axes of OpenCV: x to the right, y down, z ahead. The world is in
metres with z up.
Pixel (0, 0) covers the square from 0 to 1; its centre is (0.5, 0.5).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

OPENGL_AXES = np.diag([1.0, -1.0, -1.0, 1.0])
"""A pose times this is the pose with the camera axes of OpenGL (x right, y up, z back), and the reverse."""


@dataclass(frozen=True)
class Pinhole:
    """A camera without distortion; all lengths in pixels of an image of ``height`` x ``width``."""

    height: int
    width: int
    fx: float
    fy: float
    cx: float
    cy: float

    @classmethod
    def of_view(cls, size: tuple[int, int], degrees: float) -> Pinhole:
        """Square pixels, the axis in the middle, ``degrees`` from left to right; size (height, width)."""
        height, width = size
        focal = width / 2 / math.tan(math.radians(degrees) / 2)
        return cls(height, width, focal, focal, width / 2, height / 2)

    def scaled(self, factor: int) -> Pinhole:
        """The same view in an image with ``factor`` times as many rows and columns."""
        return Pinhole(
            self.height * factor,
            self.width * factor,
            self.fx * factor,
            self.fy * factor,
            self.cx * factor,
            self.cy * factor,
        )

    def rays(self) -> np.ndarray:
        """(H, W, 3) directions of the pixel centres in camera axes, z = 1."""
        x = (np.arange(self.width) + 0.5 - self.cx) / self.fx
        y = (np.arange(self.height) + 0.5 - self.cy) / self.fy
        return np.stack([*np.meshgrid(x, y), np.ones((self.height, self.width))], -1)

    def points(self, depth: np.ndarray, pose: np.ndarray) -> np.ndarray:
        """(H, W) depths along the axis -> (H, W, 3) points of the world; NaN where a depth is infinite."""
        depth = np.where(np.isfinite(depth), depth, np.nan)
        return (self.rays() * depth[..., None]) @ pose[:3, :3].T + pose[:3, 3]

    def project(self, points: np.ndarray, pose: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(..., 3) points of the world -> (..., 2) pixel coordinates (x, y), and (...) depths along the axis."""
        seen = (points - pose[:3, 3]) @ pose[:3, :3]
        depth = seen[..., 2]
        with np.errstate(divide="ignore", invalid="ignore"):
            return seen[..., :2] / depth[..., None] * (self.fx, self.fy) + (self.cx, self.cy), depth


def looking(position: np.ndarray, yaw: float, pitch: float = 0.0) -> np.ndarray:
    """(4, 4) pose of a level camera.

    Args:
        position: (3,) of the camera in the world.
        yaw: radians from the world's x axis to its y axis.
        pitch: radians upwards.
    """
    ahead = np.array([math.cos(yaw) * math.cos(pitch), math.sin(yaw) * math.cos(pitch), math.sin(pitch)])
    right = np.array([math.sin(yaw), -math.cos(yaw), 0.0])
    pose = np.eye(4)
    pose[:3, :4] = np.stack([right, np.cross(ahead, right), ahead, position], 1)
    return pose


def angles_to(position: np.ndarray, target: np.ndarray) -> tuple[float, float]:
    """Yaw and pitch, as :func:`looking` takes them, from one point of the world towards another."""
    x, y, z = (float(value) for value in target - position)
    return math.atan2(y, x), math.atan2(z, math.hypot(x, y))
