"""A street with buildings and cars, and the way of a car along it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from nemo_cosmos.scenes import textures
from nemo_cosmos.scenes.geometry import STILL, Light, Scene, Surface, Vector, box
from nemo_cosmos.scenes.textures import COLOURS, Atlas

ROAD, KERB, LANE = 5.0, 8.0, -1.7
"""Metres from the middle of the road to its edge, to the buildings, and of the way driven."""
BEHIND, AHEAD = 50.0, 70.0
"""Metres of street behind the start and beyond the end of the way."""
BUILDINGS = ("red brick", "brown brick", "grey concrete", "white plaster", "yellow plaster", "green plaster")
CARS = ("red", "blue", "green", "yellow", "white", "black", "orange", "purple")
SKY = (0.52, 0.68, 0.90)


@dataclass(frozen=True)
class Street:
    """A street along x, z up, and the car that drives along it.

    Attributes:
        scene: everything but the car itself; other cars move.
        poses: (T, 4, 4) of the car to the world: x ahead, y to its left, z up.
        times: T instants in seconds.
    """

    scene: Scene
    poses: np.ndarray
    times: tuple[float, ...]


def draw_street(random: np.random.Generator, frames: int, fps: float) -> Street:
    """A street, and ``frames`` poses of a car at ``fps`` a second."""
    times = tuple(number / fps for number in range(frames))
    poses = _drive(random, np.array(times))
    length = float(poses[-1, 0, 3])
    made = _materials(random)
    first, last = -BEHIND, length + AHEAD
    surfaces = _ground(first, last)
    for side in (-1, 1):
        surfaces += _buildings(random, first, last, side)
        surfaces += _parked(random, first, last, side)
    surfaces += _traffic(random, length, times[-1])
    sun = np.array([float(random.uniform(-0.6, 0.6)), float(random.choice((-0.7, 0.7))), 0.75])
    sun *= 0.5 / np.sqrt((sun * sun).sum())
    light = Light(0.62, sun=(float(sun[0]), float(sun[1]), float(sun[2])))
    sky = tuple(255 * (0.35 * value + 0.65 * 0.93) for value in SKY)
    return Street(Scene(surfaces, Atlas(made), light, (sky[0], sky[1], sky[2])), poses, times)


def _drive(random: np.random.Generator, times: np.ndarray) -> np.ndarray:
    """(T, 4, 4) poses: ahead at a speed that changes a little, swaying within the lane."""
    speed, gain = random.uniform(5, 11), random.uniform(-0.8, 0.8)
    reach, period, phase = random.uniform(0.1, 0.5), random.uniform(4, 9), random.uniform(0, 2 * np.pi)
    x = speed * times + gain * times * times / 2
    x = np.maximum.accumulate(x)
    rate = 2 * np.pi / period
    y = LANE + reach * np.sin(rate * times + phase)
    yaw = np.arctan2(reach * rate * np.cos(rate * times + phase), np.maximum(speed + gain * times, 1.0))
    poses = np.tile(np.eye(4), (len(times), 1, 1))
    poses[:, 0, 0] = poses[:, 1, 1] = np.cos(yaw)
    poses[:, 1, 0], poses[:, 0, 1] = np.sin(yaw), -np.sin(yaw)
    poses[:, 0, 3], poses[:, 1, 3] = x, y
    return poses


def _materials(random: np.random.Generator) -> dict[str, np.ndarray]:
    made = {
        "asphalt": textures.asphalt(random, (0.36, 0.36, 0.38)),
        "pavement": textures.pavement(random, (0.62, 0.60, 0.57)),
        "grass": textures.leaves(random, (0.34, 0.47, 0.22)),
        "leaves": textures.leaves(random, (0.20, 0.42, 0.16)),
        "bark": textures.bark(random, (0.36, 0.27, 0.19)),
        "roof": textures.plain(random, (0.38, 0.34, 0.33)),
        "shadow": textures.plain(random, (0.13, 0.13, 0.14)),
        "clouds": textures.clouds(random, SKY),
        "metal": textures.plain(random, (0.30, 0.32, 0.33)),
    }
    for kind in BUILDINGS:
        colour = kind.split()[0]
        made[f"{kind} facade"] = textures.facade(random, COLOURS[colour])
        if kind.endswith("brick"):
            made[f"{kind} gable"] = textures.bricks(random, COLOURS[colour])
        else:
            made[f"{kind} gable"] = textures.plaster(random, COLOURS[colour])
    for colour in CARS:
        made[f"{colour} body"] = textures.bodywork(random, COLOURS[colour])
        made[f"{colour} cabin"] = textures.glazing(random, COLOURS[colour])
        made[f"{colour} lights"] = textures.lights(random, COLOURS[colour])
        made[f"{colour} paint"] = textures.plain(random, COLOURS[colour])
    return made


def _ground(first: float, last: float) -> list[Surface]:
    """Road, pavements with kerbs, grass beyond, sky."""
    length = last - first
    along, far = (length, 0.0, 0.0), 150.0
    found = [
        # The texture lies across the road: its columns from one edge to the other, its rows along the way.
        Surface((first, ROAD, 0), (0, -2 * ROAD, 0), along, "asphalt", (2 * ROAD, 8.0)),
        Surface((first - far, -far, -0.05), (length + 2 * far, 0, 0), (0, 2 * far, 0), "grass", (5.0, 5.0)),
        Surface((first - far, far, 60), (length + 2 * far, 0, 0), (0, -2 * far, 0), "clouds", (170.0, 170.0)),
    ]
    for side in (-1, 1):
        inner, outer = sorted((side * ROAD, side * KERB))
        found.append(Surface((first, inner, 0.14), along, (0, outer - inner, 0), "pavement", (2.0, 2.0)))
        start = (first, side * ROAD, 0.0) if side > 0 else (last, side * ROAD, 0.0)
        found.append(Surface(start, (side * length, 0, 0), (0, 0, 0.14), "pavement", (2.0, 2.0)))
    return found


def _buildings(random: np.random.Generator, first: float, last: float, side: int) -> list[Surface]:
    """A row of houses with gaps, and trees in some of these."""
    found: list[Surface] = []
    x, before = first, ""
    while x < last:
        kind = str(random.choice([name for name in BUILDINGS if name != before]))
        before = kind
        wide, storeys = float(random.uniform(9, 17)), int(random.integers(2, 6))
        deep, set_back = float(random.uniform(8, 12)), float(random.uniform(0, 1.5))
        middle = x + wide / 2, side * (KERB + set_back + deep / 2)
        found += box(
            middle,
            0.0,
            (wide, deep, 3.1 * storeys + 0.6),
            f"{kind} facade",
            "roof",
            tile=(12.0, 12.4),
            top_tile=(6.0, 6.0),
            label=f"{kind} building",
        )
        gap = float(random.choice((0.0, 2.5, 5.0)))
        if gap >= 5:
            found += _tree(random, x + wide + gap / 2, side * (KERB + 1.5))
        x += wide + gap
    return found


def _tree(random: np.random.Generator, x: float, y: float) -> list[Surface]:
    high, crown = float(random.uniform(2.0, 2.8)), float(random.uniform(2.2, 3.0))
    trunk = box((x, y), 0.0, (0.35, 0.35, high), "bark", "bark", tile=(1.0, 1.0))
    return trunk + box((x, y), high, (crown, crown, crown), "leaves", "leaves", yaw=0.5, tile=(2.0, 2.0), label="tree")


def _parked(random: np.random.Generator, first: float, last: float, side: int) -> list[Surface]:
    """Parked cars along the kerb, lamp posts and trees on the pavement."""
    found: list[Surface] = []
    x = first + float(random.uniform(0, 8))
    while x < last:
        if random.uniform() < 0.55:
            found += _car(random, x, side * (ROAD - 1.15), yaw=0.0 if side < 0 else np.pi, said="parked")
        if random.uniform() < 0.3:
            found += _tree(random, x + 4, side * (ROAD + 1.6))
        elif random.uniform() < 0.4:
            y = side * (ROAD + 0.5)
            found += box((x + 4, y), 0.14, (0.16, 0.16, 5.0), "metal", "metal", tile=(1.0, 1.0))
            found += box((x + 4, y - side * 0.5), 5.0, (0.3, 1.2, 0.15), "metal", "metal", tile=(1.0, 1.0))
        x += float(random.uniform(8, 12))
    return found


def _traffic(random: np.random.Generator, length: float, seconds: float) -> list[Surface]:
    """One car ahead in the same lane, and two that come towards."""
    pace = length / max(seconds, 0.1)
    ahead = pace * float(random.uniform(0.9, 1.15))
    found = _car(random, float(random.uniform(13, 20)), LANE, yaw=0.0, said="moving", velocity=(ahead, 0.0, 0.0))
    for place in (random.uniform(15, 30), random.uniform(40, 60)):
        speed = -float(random.uniform(5, 9))
        found += _car(random, float(place), -LANE, yaw=np.pi, said="oncoming", velocity=(speed, 0.0, 0.0))
    return found


def _car(
    random: np.random.Generator, x: float, y: float, *, yaw: float, said: str, velocity: Vector = STILL
) -> list[Surface]:
    """Body and cabin of a car or a van, and its shadow; its shape and colour are drawn."""
    colour = str(random.choice(CARS))
    van = bool(random.uniform() < 0.25)
    long, body, cabin = (4.9, 1.0, 1.0) if van else (4.3, 0.75, 0.6)
    label = f"{said} {colour} {'van' if van else 'car'}"
    shift = -0.1 if van else -0.25
    if yaw:
        shift = -shift
    found = box(
        (x, y), 0.18, (long, 1.75, body), f"{colour} body", f"{colour} paint", yaw=yaw, ends=f"{colour} lights",
        label=label, velocity=velocity,
    )  # fmt: skip
    found += box(
        (x + shift, y), 0.18 + body, (long * (0.85 if van else 0.52), 1.55, cabin), f"{colour} cabin",
        f"{colour} paint", yaw=yaw, label=label, velocity=velocity,
    )  # fmt: skip
    shadow = Surface(
        (x - long / 2 - 0.1, y - 0.95, 0.02), (long + 0.2, 0, 0), (0, 1.9, 0), "shadow", (4.0, 4.0), "", velocity
    )
    return [*found, shadow]
