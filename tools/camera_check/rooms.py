"""Short clips of a camera that turns and moves in one of a few rooms."""

from __future__ import annotations

import math
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache

import numpy as np

from nemo_cosmos.scenes.cameras import Pinhole, looking
from nemo_cosmos.scenes.render import render_clip
from nemo_cosmos.scenes.room import Room, draw_room

HEIGHT, WIDTH, FRAMES = 48, 64, 29
CAMERA = Pinhole.of_view((HEIGHT, WIDTH), 70.0)
STEP = 0.5
"""Metres that the camera goes: the same in all clips, because rays do not tell the unit of lengths."""


@dataclass(frozen=True)
class Clips:
    """N clips.

    Attributes:
        frames: (N, T, H, W, 3) uint8.
        poses: (N, T, 4, 4) camera to world, axes of OpenCV.
        rooms: (N,) which room each is of.
    """

    frames: np.ndarray
    poses: np.ndarray
    rooms: np.ndarray


@cache
def room(number: int) -> Room:
    """One of the rooms."""
    return draw_room(np.random.default_rng([7, number]))


def way(random: np.random.Generator, size: Sequence[float]) -> np.ndarray:
    """(T, 4, 4) poses: from about the middle of a room, turning by 20 to 63 degrees and going half a metre."""
    start = np.array([size[0] / 2, size[1] / 2, 1.5]) + np.array([*random.uniform(-0.3, 0.3, 2), 0])
    yaw = random.uniform(-math.pi, math.pi)
    turn = random.choice([-1, 1]) * random.uniform(0.35, 1.1)
    tilt = random.uniform(-0.15, 0.15)
    heading = random.uniform(-math.pi, math.pi)
    ahead = STEP * np.array([math.cos(heading), math.sin(heading), 0])
    shares = np.arange(FRAMES) / (FRAMES - 1)
    return np.stack([looking(start + ahead * share, yaw + turn * share, -0.1 + tilt * share) for share in shares])


def draw_clips(rooms: int, each: int, seed: int, workers: int) -> Clips:
    """``each`` clips of every room; another seed gives other ways through the same rooms."""
    jobs = [(number, index, seed) for number in range(rooms) for index in range(each)]
    if workers > 1:
        with ProcessPoolExecutor(workers) as pool:
            made = list(pool.map(_clip, jobs, chunksize=4))
    else:
        made = [_clip(job) for job in jobs]
    return Clips(
        np.stack([frames for frames, _ in made]),
        np.stack([poses for _, poses in made]),
        np.array([job[0] for job in jobs]),
    )


def _clip(job: tuple[int, int, int]) -> tuple[np.ndarray, np.ndarray]:
    number, index, seed = job
    poses = way(np.random.default_rng([seed, number, index]), room(number).size)
    return render_clip(room(number).scene, CAMERA, poses, [0.0] * FRAMES), poses
