"""Render short clips with true captions: a shape moves over a textured floor while the scene pans with it.

The caption names the direction, the floor's pattern repeats, and the whole picture moves, so first frame and caption
together determine every later frame: a small Video2World network can learn it, and a frozen first frame is far off.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from nemo_cosmos.atomic import write_bytes
from nemo_cosmos.data.video import write_mp4
from nemo_cosmos.errors import InputError
from nemo_cosmos.prepare.sample_folder import SPLITS, claim_folder, require_size

DIRECTIONS = {"left": (0.0, -1.0), "right": (0.0, 1.0), "up": (-1.0, 0.0), "down": (1.0, 0.0)}
SHAPE_COLOURS = {
    "red": (0.86, 0.12, 0.12),
    "green": (0.10, 0.65, 0.20),
    "blue": (0.12, 0.25, 0.88),
    "yellow": (0.95, 0.85, 0.10),
    "white": (0.97, 0.97, 0.97),
    "black": (0.04, 0.04, 0.04),
}
PAN = 0.5
"""Way of the floor over the clip as a share of the frame; the shape goes 1.25 times as far."""
PERIOD = 1.0
"""Period of the floor's pattern in shorter sides: what leaves a square frame on one side enters on the other, so that
the first frame and the caption tell all that follows."""
CONTRAST = (0.28, 0.38)
"""Difference of the floor's two tones per channel, of the full range."""
LARGEST_CLIP = 4 << 30
"""Bytes of the frames of one clip."""

Pattern = Callable[[np.ndarray, np.ndarray, float], np.ndarray]


@dataclass(frozen=True)
class SampleDataSettings:
    """What to render.

    Attributes:
        clips: training clips.
        held_out: clips in the second folder, drawn from the same scenes with other numbers.
        size: (height, width) in pixels, both even.
        frames: frames per clip, at least 2.
        fps: frame rate.
        seed: the same seed gives the same files.
    """

    clips: int = 64
    held_out: int = 8
    size: tuple[int, int] = (128, 128)
    frames: int = 17
    fps: float = 8.0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.clips < 1 or self.held_out < 0:
            raise InputError(f"clips={self.clips}, held_out={self.held_out}: expected at least 1 and at least 0")
        require_size(self.size)
        if 3 * self.frames * self.size[0] * self.size[1] > LARGEST_CLIP:
            raise InputError(
                f"--frames {self.frames} of --size {self.size[0]}x{self.size[1]}: expected a clip of at most "
                f"{LARGEST_CLIP >> 30} GiB in memory; render fewer or smaller frames"
            )
        if self.frames < 2 or not 0 < self.fps < math.inf or self.seed < 0:
            raise InputError(
                f"frames={self.frames}, fps={self.fps}, seed={self.seed}: expected frames >= 2, fps > 0, seed >= 0"
            )


@dataclass(frozen=True)
class Scene:
    """One clip's content; lengths are shares of the frame's shorter side, colours are in 0..1."""

    direction: str
    shape: str
    shape_colour: str
    pattern: str
    period: float
    phase: tuple[float, float]
    dark: tuple[float, float, float]
    light: tuple[float, float, float]
    radius: float
    offset: float

    @property
    def caption(self) -> str:
        return f"a {self.shape_colour} {self.shape} moves {self.direction} over a {self.pattern} floor"


def render_sample_data(out: str | Path, settings: SampleDataSettings) -> Iterator[Path]:
    """Write ``out/{train,held_out}/{videos,metas}``; yields each clip's path once it is there.

    Clips that an earlier call with the same settings wrote are kept.

    Raises:
        InputError: ``out`` holds clips of other settings, or other files.
    """
    out = Path(out)
    claim_folder(out, {**asdict(settings), "size": list(settings.size)})
    for split_number, (split, count) in enumerate(zip(SPLITS, (settings.clips, settings.held_out), strict=True)):
        (out / split / "metas").mkdir(parents=True, exist_ok=True)
        for number in range(count):
            video = out / split / "videos" / f"{split}_{number:05d}.mp4"
            if not video.is_file():
                scene = draw_scene(np.random.default_rng((settings.seed, split_number, number)), number)
                caption = out / split / "metas" / f"{video.stem}.txt"
                write_bytes(caption, (scene.caption + "\n").encode())
                write_mp4(video, render_scene(scene, settings.frames, settings.size), settings.fps, quality=12)
            yield video


def draw_scene(random: np.random.Generator, number: int) -> Scene:
    """Draw a scene; directions and patterns take turns by ``number``, so that even a few clips show all of them."""
    directions, patterns = list(DIRECTIONS), list(PATTERNS)
    middle = random.uniform(0.36, 0.64, size=3)
    half = random.uniform(*CONTRAST) / 2 * random.uniform(0.75, 1.25, size=3)
    return Scene(
        direction=directions[number % len(directions)],
        shape=str(random.choice(list(SHAPES))),
        shape_colour=str(random.choice(list(SHAPE_COLOURS))),
        pattern=patterns[number // len(directions) % len(patterns)],
        period=PERIOD,
        phase=(float(random.uniform()), float(random.uniform())),
        dark=tuple(np.clip(middle - half, 0, 1).tolist()),
        light=tuple(np.clip(middle + half, 0, 1).tolist()),
        radius=float(random.uniform(0.13, 0.19)),
        offset=float(random.uniform(-0.2, 0.2)),
    )


def render_scene(scene: Scene, frames: int, size: tuple[int, int]) -> np.ndarray:
    """(T, H, W, 3) uint8 frames of a scene."""
    height, width = size
    side = min(size)
    rows = (np.arange(height) + 0.5)[:, None] / side
    columns = (np.arange(width) + 0.5)[None, :] / side
    centre = np.array([height / side / 2, width / side / 2])
    extent = centre * 2
    direction = np.array(DIRECTIONS[scene.direction])
    along = float(np.abs(direction) @ extent)
    start = centre - direction * along * PAN * 1.25 / 2 + np.abs(direction[::-1]) * scene.offset
    soft = 1.0 / side  # edges blend over one pixel, so that motion by parts of a pixel is visible
    dark, light = np.array(scene.dark), np.array(scene.light)
    video: np.ndarray = np.empty((frames, height, width, 3), np.uint8)
    for t in range(frames):
        way = direction * along * PAN * t / (frames - 1)
        u = (rows - way[0]) / scene.period + scene.phase[0]
        v = (columns - way[1]) / scene.period + scene.phase[1]
        mix = PATTERNS[scene.pattern](u, v, soft / scene.period)[..., None]
        image = dark + (light - dark) * mix
        position = start + way * 1.25
        y, x = (rows - position[0]) / scene.radius, (columns - position[1]) / scene.radius
        inside = _step(-SHAPES[scene.shape](y, x), soft / scene.radius)[..., None]
        image = image + (np.array(SHAPE_COLOURS[scene.shape_colour]) - image) * inside
        video[t] = np.clip(image * 255 + 0.5, 0, 255).astype(np.uint8)
    return video


def _step(value: np.ndarray, soft: float) -> np.ndarray:
    """0 for negative, 1 for positive values, linear over ``soft`` on both sides of zero."""
    return np.clip(value / (2 * soft) + 0.5, 0, 1)


def _wave(phase: np.ndarray, soft: float) -> np.ndarray:
    """Square wave of period 1 with soft edges."""
    return _step(0.25 - np.abs(phase - np.floor(phase) - 0.5), soft)


def _checkered(u: np.ndarray, v: np.ndarray, soft: float) -> np.ndarray:
    a, b = _wave(u, soft), _wave(v, soft)
    return a * (1 - b) + b * (1 - a)


def _striped(u: np.ndarray, v: np.ndarray, soft: float) -> np.ndarray:
    return _wave(u + v, 2 * soft)  # diagonal, so that every direction is visible


def _dotted(u: np.ndarray, v: np.ndarray, soft: float) -> np.ndarray:
    y, x = u - np.floor(u) - 0.5, v - np.floor(v) - 0.5
    return _step(0.36 - np.hypot(y, x), soft)


def _wavy(u: np.ndarray, v: np.ndarray, soft: float) -> np.ndarray:
    return np.clip(0.5 + 0.5 * (np.sin(2 * np.pi * u) + np.sin(2 * np.pi * v)), 0, 1)


PATTERNS: dict[str, Pattern] = {"checkered": _checkered, "striped": _striped, "dotted": _dotted, "wavy": _wavy}

# Signed distance-like functions of a shape of radius 1 around the origin: negative inside.
SHAPES: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "disc": lambda y, x: np.hypot(y, x) - 1,
    "square": lambda y, x: np.maximum(np.abs(y), np.abs(x)) - 0.85,
    "diamond": lambda y, x: (np.abs(y) + np.abs(x) - 1.15) / np.sqrt(2),
    "ring": lambda y, x: np.abs(np.hypot(y, x) - 0.72) - 0.28,
    "cross": lambda y, x: np.minimum(
        np.maximum(np.abs(y) - 1, np.abs(x) - 0.35), np.maximum(np.abs(x) - 1, np.abs(y) - 0.35)
    ),
    "triangle": lambda y, x: np.maximum(y - 0.7, (2 * np.abs(x) - y - 1.0) / np.sqrt(5)),
}
