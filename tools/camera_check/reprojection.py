"""Whether a point that two frames of a rendered room show lies on the rays of both."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from nemo_cosmos.camera.rays import Cameras, normalise, rays
from nemo_cosmos.scenes.cameras import Pinhole
from nemo_cosmos.scenes.render import trace
from nemo_cosmos.scenes.room import draw_room
from nemo_cosmos.scenes.trajectories import WAYS, draw_trajectory

SIZE, FRAMES, POINTS = (88, 160), 57, 500
ALLOWED = 1e-4
"""Distance of a point from a ray, over its distance from the camera."""


def reprojection_error(seed: int = 0) -> tuple[float, int]:
    """The largest distance of a point from a ray that shall meet it, over its distance from the camera, and how many.

    Points are what the ray caster meets in the first frame; each is projected into all other frames.
    """
    worst, count = 0.0, 0
    camera = Pinhole.of_view(SIZE, 70.0)
    for number, kind in enumerate(WAYS):
        random = np.random.default_rng([seed, number])
        room = draw_room(random)
        poses = draw_trajectory(random, room, kind, FRAMES)
        depth = trace(room.scene, camera, poses[0]).depth
        points = camera.points(depth, poses[0])[np.isfinite(depth)]
        error, seen = _worst(camera, poses, points[random.integers(0, len(points), POINTS)])
        worst, count = max(worst, error), count + seen
    return worst, count


def _worst(camera: Pinhole, poses: np.ndarray, points: np.ndarray) -> tuple[float, int]:
    intrinsics = torch.tensor([camera.fx, camera.fy, camera.cx, camera.cy], dtype=torch.float64)
    chunk, scale = normalise(Cameras(torch.from_numpy(poses), intrinsics.repeat(len(poses), 1), SIZE))
    # Where the points are for somebody who knows the rays alone: seen from the first camera, in units of the scale.
    seen = torch.from_numpy((points - poses[0][:3, 3]) @ poses[0][:3, :3]) / scale
    worst, count = 0.0, 0
    for number, pose in enumerate(poses):
        pixels, depth = camera.project(points, pose)
        inside = (depth > 0) & (pixels >= 0).all(-1) & (pixels < (SIZE[1], SIZE[0])).all(-1)
        lines = rays(chunk[[number]], torch.from_numpy(pixels[inside]))[0]
        worst = max(worst, _distance(seen[inside], lines, chunk.poses[number, :3, 3]))
        count += int(inside.sum())
    return worst, count


def _distance(points: Tensor, lines: Tensor, centre: Tensor) -> float:
    """Largest |p x d - m| over |p - c|: the direction d has length 1, so that this is an angle."""
    if not len(points):
        return 0.0
    direction, moment = lines.split(3, dim=-1)
    away = (torch.linalg.cross(points, direction) - moment).norm(dim=-1)
    return float((away / (points - centre).norm(dim=-1)).max())
