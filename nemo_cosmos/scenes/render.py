"""The ray caster: which surface each pixel sees, how far away, and its colour.

Over a plane, inverse depth, and texture coordinates divided by depth, are affine in the pixel coordinates. Each
surface therefore takes three sums of a row and a column, inside the rectangle of pixels that its corners span; the
nearest wins.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields

import numpy as np

from nemo_cosmos.scenes.cameras import Pinhole
from nemo_cosmos.scenes.geometry import Placed, Scene

NEAR = 0.02
"""Metres in front of the camera within which nothing is seen."""
BAND = 1 << 14
"""Rays that are cast at a time: their arrays stay in the processor's cache, and memory small."""


@dataclass(frozen=True)
class Hits:
    """What H x W rays see.

    Attributes:
        surface: (H, W) int32, index in the scene's surfaces; -1 where there is none.
        depth: (H, W) float64, metres along the camera's axis; infinite where there is none.
        coordinates: (H, W, 2) float64, place on the surface, 0..1 along both sides.
    """

    surface: np.ndarray
    depth: np.ndarray
    coordinates: np.ndarray


def trace(scene: Scene, camera: Pinhole, pose: np.ndarray, time: float = 0.0) -> Hits:
    """What the centre of each pixel sees.

    Args:
        pose: (4, 4) camera to world, axes of OpenCV.
        time: seconds, for scenes that move.
    """
    bands = [_cast(scene, camera, pose, time, rows).hits for rows in _bands(camera)]
    return Hits(*(np.concatenate([getattr(band, part.name) for band in bands]) for part in fields(Hits)))


def render(scene: Scene, camera: Pinhole, pose: np.ndarray, time: float = 0.0, *, supersample: int = 2) -> np.ndarray:
    """(H, W, 3) uint8 picture; each pixel is the mean of ``supersample`` x ``supersample`` rays."""
    fine = camera.scaled(supersample)
    parts = []
    for rows in _bands(fine, supersample):
        colours = _colours(scene, fine, pose, time, _cast(scene, fine, pose, time, rows))
        phases = [colours[i::supersample, j::supersample] for i in range(supersample) for j in range(supersample)]
        mean = sum(phases[1:], phases[0]) / np.float32(len(phases))
        parts.append((mean + 0.5).astype(np.uint8))
    return np.concatenate(parts)


def render_clip(
    scene: Scene, camera: Pinhole, poses: np.ndarray, times: Sequence[float], *, supersample: int = 2
) -> np.ndarray:
    """(T, H, W, 3) uint8 pictures of (T, 4, 4) poses at T times in seconds."""
    frames = [
        render(scene, camera, pose, time, supersample=supersample) for pose, time in zip(poses, times, strict=True)
    ]
    return np.stack(frames)


def _bands(camera: Pinhole, multiple: int = 1) -> Iterator[range]:
    """Rows of the picture, some at a time: a multiple of ``multiple``."""
    step = max(1, BAND // (camera.width * multiple)) * multiple
    for first in range(0, camera.height, step):
        yield range(first, min(first + step, camera.height))


@dataclass(frozen=True)
class _Seen:
    """Hits of a band of rows, and the camera's distance from each surface's plane in metres."""

    hits: Hits
    heights: np.ndarray


def _cast(scene: Scene, camera: Pinhole, pose: np.ndarray, time: float, rows: range) -> _Seen:
    placed = scene.at(time)
    heights = ((pose[:3, 3] - placed.corner) * placed.normal).sum(-1)
    x = (np.arange(camera.width) + 0.5 - camera.cx) / camera.fx
    y = (np.arange(rows.start, rows.stop) + 0.5 - camera.cy) / camera.fy
    forms = _forms(placed, pose, heights)
    shape = len(y), len(x)
    inverse = np.zeros(shape)
    surface = np.full(shape, -1, np.int32)
    for index, (top, bottom, left, right) in _windows(placed, camera, pose, heights, rows):
        window = slice(top, bottom), slice(left, right)
        form = forms[index]
        one, across, upward = (
            (form[k, 1] * y[window[0], None] + form[k, 2]) + form[k, 0] * x[None, window[1]] for k in range(3)
        )
        seen = one > inverse[window]
        for value in (across, upward):
            seen &= value >= 0
            seen &= value <= one
        np.copyto(inverse[window], one, where=seen)
        np.copyto(surface[window], np.int32(index), where=seen)
    with np.errstate(divide="ignore"):
        depth = 1 / inverse
    form = forms[np.maximum(surface, 0)]
    grid = np.broadcast_to(x[None], shape), np.broadcast_to(y[:, None], shape)
    coordinates = np.stack(
        [form[..., k, 0] * grid[0] + form[..., k, 1] * grid[1] + form[..., k, 2] for k in (1, 2)], -1
    )
    coordinates = np.where(surface[..., None] >= 0, coordinates, 0) * np.where(surface >= 0, depth, 0)[..., None]
    return _Seen(Hits(surface, depth, coordinates), heights)


def _forms(placed: Placed, pose: np.ndarray, heights: np.ndarray) -> np.ndarray:
    """(S, 3, 3) coefficients of (x, y, 1), the ray in camera axes, for inverse depth and both coordinates over depth.

    A ray c + z·d meets the plane where z = -height / (normal · d); the place there is a · (c - corner + z·d).
    """
    turn = pose[:3, :3]
    with np.errstate(divide="ignore", invalid="ignore"):
        one = -(placed.normal @ turn) / heights[:, None]
    rows = [one]
    for side in (placed.along, placed.up):
        scaled = side / (side * side).sum(-1, keepdims=True)
        start = ((pose[:3, 3] - placed.corner) * scaled).sum(-1, keepdims=True)
        rows.append(start * one + scaled @ turn)
    return np.stack(rows, 1)


def _windows(
    placed: Placed, camera: Pinhole, pose: np.ndarray, heights: np.ndarray, rows: range
) -> Iterator[tuple[int, tuple[int, int, int, int]]]:
    """Surfaces that may be seen, each with its rows (of the band) and columns: top, bottom, left, right."""
    seen = (placed.corners - pose[:3, 3]) @ pose[:3, :3]
    depth = seen[..., 2]
    ahead = depth > NEAR
    whole = ahead.all(1)
    safe = np.where(ahead, depth, 1.0)
    x = seen[..., 0] / safe * camera.fx + camera.cx
    y = seen[..., 1] / safe * camera.fy + camera.cy - rows.start
    # Where a corner is behind the camera its picture says nothing; sides of the view still may exclude the whole.
    left, right = _span(x, whole, camera.width)
    top, bottom = _span(y, whole, len(rows))
    possible = (heights > 1e-9) & ahead.any(1) & (left < right) & (top < bottom)
    for k, focal, low, high in (
        (0, camera.fx, -camera.cx, camera.width - camera.cx),
        (1, camera.fy, rows.start - camera.cy, rows.stop - camera.cy),
    ):
        possible &= ~(seen[..., k] * focal < low * depth).all(1) & ~(seen[..., k] * focal > high * depth).all(1)
    for index in np.flatnonzero(possible):
        yield int(index), (int(top[index]), int(bottom[index]), int(left[index]), int(right[index]))


def _span(values: np.ndarray, whole: np.ndarray, limit: int) -> tuple[np.ndarray, np.ndarray]:
    """First pixel and the one behind the last that (S, 4) corners span; all of them where ``whole`` is false."""
    first = np.where(whole, np.clip(np.floor(values.min(1)) - 1, 0, limit), 0)
    last = np.where(whole, np.clip(np.ceil(values.max(1)) + 1, 0, limit), limit)
    return first.astype(int), last.astype(int)


def _colours(scene: Scene, camera: Pinhole, pose: np.ndarray, time: float, seen: _Seen) -> np.ndarray:
    """(rows, W, 3) float32 in 0..255."""
    placed, hits = scene.at(time), seen.hits
    hit = hits.surface >= 0
    everywhere = bool(hit.all())
    surface, depth, place = (
        part.reshape(-1, *part.shape[2:]) if everywhere else part[hit]
        for part in (hits.surface, hits.depth, hits.coordinates)
    )
    # A pixel covers depth / focal metres, and more where the surface is seen at a flat angle.
    flat = np.sqrt(depth / np.maximum(seen.heights, 1e-9)[surface])
    covered = depth * flat * (scene.density / camera.fx)[surface]
    looked_up = scene.atlas.look_up(scene.texture_ids[surface], place * scene.repeats[surface], covered)
    points = placed.corner[surface] + place[:, :1] * placed.along[surface] + place[:, 1:] * placed.up[surface]
    looked_up *= scene.light.on(points, placed.normal[surface]).astype(np.float32)[:, None]
    np.minimum(looked_up, 255, out=looked_up)
    if everywhere:
        return looked_up.reshape(*hit.shape, 3)
    colours = np.empty((*hit.shape, 3), np.float32)
    colours[...] = scene.background
    colours[hit] = looked_up
    return colours
