"""Whether the rays of a clip meet what its pictures show: points of ray-cast rooms against rays of their pose files.

The points, their places in the pictures and whether they are seen come from the ray caster alone, the rays from a
``transforms.json`` through the same functions as those of prepared samples.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

import numpy as np
import torch

from nemo_cosmos.camera.rays import Cameras, fitted, normalise, rays
from nemo_cosmos.camera.transforms import parse_transforms
from nemo_cosmos.choices import Fit
from nemo_cosmos.data.resize import geometry
from nemo_cosmos.errors import require_range
from nemo_cosmos.scenes.cameras import OPENGL_AXES, Pinhole
from nemo_cosmos.scenes.geometry import Scene
from nemo_cosmos.scenes.render import trace
from nemo_cosmos.scenes.room import draw_room
from nemo_cosmos.scenes.trajectories import WAYS, draw_trajectory

VIEW = 70.0
SOURCE, ENCODED = (72, 128), (64, 96)
"""Height and width of the pictures, and of the encoded frames, which have another shape."""
JSON_SCALE = 4
"""Times that the size in the pose file is the pictures'."""
SAME_DEPTH = 0.02
"""Share by which the depth of a point may differ from what its pixel sees in the other frame."""
REQUIRED = 1e-4


@dataclass(frozen=True)
class Reprojection:
    """Distances of points from rays, each divided by the point's distance from the camera.

    Attributes:
        kind: of the way through the room.
        fit: how the pictures were brought to the encoded size.
        points: seen in both frames.
        largest, mean: over the rays of both frames.
    """

    kind: str
    fit: Fit
    points: int
    largest: float
    mean: float


def reprojection(rooms: int = 3, frames: int = 57, seed: int = 0) -> list[Reprojection]:
    """Measure ways through rooms of different kinds: points of the first frame that the middle and the last see.

    Raises:
        InputError: no rooms, or fewer than three frames.
    """
    require_range("--rooms", rooms, 1, 1000)
    require_range("--frames", frames, 3, 1025)
    require_range("--seed", seed, 0, (1 << 63) - 1)
    kinds = list(WAYS)
    fits: list[Fit] = ["pad", "crop", "stretch"]
    return [_measure(kinds[i % len(kinds)], fits[i % len(fits)], frames, (seed, i)) for i in range(rooms)]


def _measure(kind: str, fit: Fit, frames: int, seed: tuple[int, int]) -> Reprojection:
    random = np.random.default_rng(seed)
    room = draw_room(random)
    poses = np.asarray(draw_trajectory(random, room, kind, frames))
    camera = Pinhole.of_view(SOURCE, VIEW)
    track = parse_transforms(_transforms(poses, camera), "transforms.json")
    chunk, scale = normalise(fitted(track.cameras, ENCODED, fit))
    seen = camera.points(trace(room.scene, camera, poses[0]).depth, poses[0]).reshape(-1, 3)
    seen = seen[np.isfinite(seen).all(-1)]
    errors, count = [], 0
    for other in (frames // 2, frames - 1):
        points = seen[_visible(room.scene, camera, poses[other], seen)]
        count += len(points)
        for frame in (0, other):
            pixels, _ = camera.project(points, poses[frame])
            errors.append(_distances(chunk, frame, _encoded(pixels, fit), _local(points, poses[0]) / scale))
    every = torch.cat(errors)
    assert count, "no point of the first frame is seen again"
    return Reprojection(kind, fit, count, float(every.max()), float(every.mean()))


def _transforms(poses: np.ndarray, camera: Pinhole) -> str:
    """As nerfstudio writes it, frames in disorder."""
    full = camera.scaled(JSON_SCALE)
    frames = [
        {"file_path": f"images/{i}.png", "transform_matrix": (pose @ OPENGL_AXES).tolist()}
        for i, pose in enumerate(poses)
    ]
    lengths = {"fl_x": full.fx, "fl_y": full.fy, "cx": full.cx, "cy": full.cy, "w": full.width, "h": full.height}
    return json.dumps({**lengths, "frames": frames[::-1]})


def _visible(scene: Scene, camera: Pinhole, pose: np.ndarray, points: np.ndarray) -> np.ndarray:
    """(N,) whether each point of the world is what the camera sees at its place."""
    pixels, depth = camera.project(points, pose)
    inside = (depth > 0) & ((pixels >= 0) & (pixels < (camera.width, camera.height))).all(-1)
    column, row = np.where(inside[:, None], pixels, 0).astype(int).T
    met = trace(scene, camera, pose).depth[row, column]
    return inside & (np.abs(met - depth) < SAME_DEPTH * depth)


def _encoded(pixels: np.ndarray, fit: Fit) -> torch.Tensor:
    """Places in the pictures -> places in the encoded frames."""
    plan = geometry(SOURCE, ENCODED, fit)
    factors = (plan.resized[1] / SOURCE[1], plan.resized[0] / SOURCE[0])
    return torch.from_numpy(pixels * factors - (plan.left, plan.top))


def _local(points: np.ndarray, pose: np.ndarray) -> torch.Tensor:
    """Points of the world in the axes of a camera."""
    return torch.from_numpy((points - pose[:3, 3]) @ pose[:3, :3])


def _distances(chunk: Cameras, frame: int, pixels: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
    """(N,) distances of points p from the rays (d, m) of their pixels, |p x d - m|, by those from the camera."""
    direction, moment = rays(chunk[[frame]], pixels)[0].split(3, dim=-1)
    apart = torch.linalg.cross(points, direction) - moment
    return apart.norm(dim=-1) / (points - chunk.poses[frame, :3, 3]).norm(dim=-1)
