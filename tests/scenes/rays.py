"""Independent geometry for the tests of scenes: one ray against every surface, and what two pictures share."""

from __future__ import annotations

import numpy as np


def cast(scene, origin, direction, time=0.0):
    """Number of the first surface on a ray and the point there, by the equations of the planes; (-1, None): none."""
    best, found = np.inf, (-1, None)
    for number, surface in enumerate(scene.surfaces):
        corner = np.array(surface.corner) + np.array(surface.velocity) * (time if scene.moves else 0.0)
        along, up = np.array(surface.along), np.array(surface.up)
        normal = np.cross(along, up)
        if normal @ direction >= 0 or normal @ (origin - corner) <= 0:
            continue
        way = normal @ (corner - origin) / (normal @ direction)
        point = origin + way * direction
        place = [(point - corner) @ side / (side @ side) for side in (along, up)]
        if 0 < way < best and all(0 <= value <= 1 for value in place):
            best, found = way, (number, point)
    return found


def ray(camera, pose, x, y):
    """Direction in the world, of length 1, of pixel coordinates."""
    direction = pose[:3, :3] @ np.array([(x - camera.cx) / camera.fx, (y - camera.cy) / camera.fy, 1.0])
    return direction / np.linalg.norm(direction)


def bilinear(picture, x, y):
    """Colours of an (H, W, 3) picture at pixel coordinates, whose centres are at 0.5; N of them."""
    x, y = x - 0.5, y - 0.5
    left = np.clip(np.floor(x).astype(int), 0, picture.shape[1] - 2)
    top = np.clip(np.floor(y).astype(int), 0, picture.shape[0] - 2)
    u, v = (x - left)[:, None], (y - top)[:, None]
    picture = picture.astype(np.float64)
    upper = picture[top, left] * (1 - u) + picture[top, left + 1] * u
    lower = picture[top + 1, left] * (1 - u) + picture[top + 1, left + 1] * u
    return upper * (1 - v) + lower * v


def shared_points(scene, first, second, time=0.0):
    """Points that two cameras see: pixel coordinates (N, 2) in both, points (N, 3) and surfaces (N,).

    Args:
        first, second: camera and pose each.
    """
    from nemo_cosmos.scenes.render import trace

    (camera, pose), (other, other_pose) = first, second
    hits, others = trace(scene, camera, pose, time), trace(scene, other, other_pose, time)
    rows, columns = np.nonzero(hits.surface >= 0)
    points = camera.points(hits.depth, pose)[rows, columns]
    there, depth = other.project(points, other_pose)
    inside = (depth > 0.1) & (there > 1).all(1) & (there[:, 0] < other.width - 1) & (there[:, 1] < other.height - 1)
    rows, columns, points, there, depth = rows[inside], columns[inside], points[inside], there[inside], depth[inside]
    near = there[:, 1].astype(int), there[:, 0].astype(int)
    surface = hits.surface[rows, columns]
    seen = (others.surface[near] == surface) & (np.abs(others.depth[near] / depth - 1) < 0.1)
    here = np.stack([columns + 0.5, rows + 0.5], 1)
    return here[seen], there[seen], points[seen], surface[seen]
