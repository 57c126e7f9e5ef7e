"""Cut-outs that fly before a photograph: on lines and bows, bouncing, turning, in front of and behind each other."""

from __future__ import annotations

import math

import numpy as np

from nemo_cosmos.scenes.textures import COLOURS
from nemo_cosmos.scenes.words import enumerated, with_article
from nemo_cosmos.scenes.worlds.moving_photo import direction, draw_view, seen
from nemo_cosmos.scenes.worlds.outlines import SIMPLE
from nemo_cosmos.scenes.worlds.paths import amount, progress
from nemo_cosmos.scenes.worlds.pictures import Material
from nemo_cosmos.scenes.worlds.stage import Clip, Stage, as_levels, graded, lit
from nemo_cosmos.scenes.worlds.things import Thing, put

WAYS = ("line", "line", "line", "bow", "bounce", "circle", "fall", "stay")


def draw_thing(stage: Stage, way: str) -> tuple[Thing, str]:
    """Something cut out of a photograph, a texture or plain paint, on a way; and what to say of it."""
    shape = stage.choose(tuple(SIMPLE))
    material, colour = _covering(stage)
    radius = stage.draw(0.16, 0.5)
    x, y, said = _way(stage, way, radius)
    turning = stage.draw(-1, 1) * amount(stage, (0.2, 4), 3) if stage.chance(0.4) else 0.0
    angle = stage.draw(-0.4, 0.4) + turning * np.linspace(0, 1, stage.frames)
    scale = np.exp(stage.draw(-0.4, 0.4) * progress(stage)) if stage.chance(0.2) else 1.0
    grain = math.exp(stage.draw(math.log(0.5), math.log(1.6)))
    thing = Thing(
        SIMPLE[shape](stage.random),
        material,
        radius,
        x,
        y,
        angle,
        scale,
        grain,
        (stage.draw(-0.6, 0.6), stage.draw(-0.6, 0.6)),
        round=1.0 if shape == "ball" else (0.0, 0.12, 0.3)[int(stage.random.integers(3))],
        shadow=(stage.draw(0.02, 0.1), stage.draw(0.03, 0.12), stage.draw(0.2, 0.5)) if stage.chance(0.7) else None,
        gloss=stage.draw(0.2, 0.5) if shape == "ball" and stage.chance(0.6) else 0.0,
    )
    return thing, f"{with_article(colour + shape)} {said}"


def _covering(stage: Stage) -> tuple[Material, str]:
    if stage.chance(0.45):
        return stage.material(), ""
    colour = stage.choose([name for name in COLOURS if name != "brown"])
    material = stage.texture("plain", "plaster", "carpet", "wooden", "tiled", "striped")
    return stage.painted(material, COLOURS[colour], stage.draw(0.85, 1.0)), f"{colour} "


def _way(stage: Stage, way: str, radius: float) -> tuple[np.ndarray, np.ndarray, str]:
    """(T,) x and y, and what to say of them."""
    wide = stage.aspect
    share, seconds = progress(stage), stage.seconds
    if way == "stay":
        still = np.zeros(stage.frames)
        return still + stage.draw(-wide, wide), still + stage.draw(-1, 1), "stays still"
    if way == "circle":
        turn = amount(stage, (0.5, 4), 5) * (1 if stage.chance(0.5) else -1)
        angle, size = stage.draw(0, 6.3) + turn * np.linspace(0, 1, stage.frames), stage.draw(0.2, 0.6)
        x, y = stage.draw(-0.5, 0.5) * wide + size * np.cos(angle), stage.draw(-0.4, 0.4) + size * np.sin(angle)
        return x, y, "moves around"
    if way == "bounce":
        even = np.linspace(0, 1, stage.frames)
        x, y = (
            _reflected(stage.draw(-limit, limit) + stage.draw(-1, 1) * amount(stage, (0.4, 3), 3) * even, limit)
            for limit in (wide - radius, 1 - radius)
        )
        return x, y, "moves from side to side"
    if way == "fall":
        speed = amount(stage, (0.6, 4), 3.0) / max(seconds[-1], 1e-6)
        height = _fallen(seconds * speed, stage.draw(0.3, 1.6), stage.draw(0.5, 0.85))
        return share * stage.draw(-0.6, 0.6) + stage.draw(-wide, wide) * 0.8, 1 - radius - height, "falls"
    far = amount(stage, (0.15, 2.5), 2.4)
    bow = (stage.draw(-0.5, 0.5) if way == "bow" else 0.0) * np.sin(np.pi * share)
    heading = stage.draw(0, 2 * math.pi)
    dx, dy = far * math.cos(heading), far * math.sin(heading) * 0.8
    bow = np.sin(np.pi * share) * (stage.draw(-0.5, 0.5) if way == "bow" else 0.0)
    x = dx * (share - 0.5) - dy * bow + stage.draw(-0.75, 0.75) * wide
    y = dy * (share - 0.5) + dx * bow + stage.draw(-0.7, 0.7)
    ends = (x[-1] - x[0], y[-1] - y[0])
    return x, y, f"moves {direction(*ends)}" if math.hypot(*ends) > 0.1 else "moves around"


def _reflected(values: np.ndarray, limit: float) -> np.ndarray:
    """Thrown back at -limit and limit."""
    limit = max(limit, 0.05)
    return np.abs((values + limit) % (4 * limit) - 2 * limit) - limit


def _fallen(time: np.ndarray, height: float, spring: float) -> np.ndarray:
    """Height above the ground of what is let go at ``height`` under a gravity of 2, and bounces."""
    found = np.zeros_like(time)
    fall = math.sqrt(height)
    start, speed = -fall, 2 * fall
    for _ in range(8):
        inside = (time >= start) & (time < start + speed)
        local = time - start
        found = np.where(inside, speed * local - local**2, found)
        start, speed = start + speed, speed * spring
    return np.maximum(found, 0)


def render_floating(stage: Stage) -> Clip:
    """One to four things before a picture that stands still or moves."""
    material = stage.material(0.85)
    if stage.chance(0.6):
        one, said = stage.still(), ""
        view, _ = draw_view(one, material)
        colours = graded(one, seen(one, material, view)).expand(-1, stage.frames, -1, -1)
    else:
        view, said = draw_view(stage, material)
        said = f", the camera {said}"
        colours = graded(stage, seen(stage, material, view))
    count = int(stage.random.integers(1, 5))
    words = []
    for number in range(count):
        thing, word = draw_thing(stage, stage.choose(WAYS[:-1]) if number == 0 else stage.choose(WAYS))
        colours, _ = put(stage, colours, thing)
        words.append(word)
    return Clip(as_levels(lit(stage, colours)), f"{enumerated(words)} over {material.picture.shows}{said}")
