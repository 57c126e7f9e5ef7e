"""A table that stands still before a wall, with things on it, as a robot's camera sees it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from nemo_cosmos.scenes.textures import COLOURS
from nemo_cosmos.scenes.words import with_article
from nemo_cosmos.scenes.worlds import outlines
from nemo_cosmos.scenes.worlds.outlines import Outline
from nemo_cosmos.scenes.worlds.pictures import Material
from nemo_cosmos.scenes.worlds.stage import Stage, graded
from nemo_cosmos.scenes.worlds.things import Thing, put

TOOLS: dict[str, tuple[Outline, float]] = {
    "cup": (outlines.cup, 0.14),
    "bowl": (outlines.ellipse(0.62), 0.2),
    "ball": (outlines.disc, 0.1),
    "box": (outlines.block(0.9, 0.7, 0.12), 0.15),
    "can": (outlines.block(0.5, 0.8, 0.2), 0.15),
    "bottle": (outlines.bottle, 0.2),
    "spoon": (outlines.spoon, 0.22),
    "banana": (outlines.banana, 0.2),
    "carrot": (outlines.carrot, 0.19),
    "cube": (outlines.block(0.8, 0.8, 0.08), 0.12),
    "star": (outlines.star(5, 0.45), 0.14),
}
"""What an arm takes: outline and size."""
FLAT = ("spoon", "banana", "carrot", "star")
TABLES = ("brown", "brown", "orange", "white", "white", "grey", "grey", "yellow", "green", "blue", "red", "purple")
"""Colours of tables and walls; those that are seen more often in rooms are there twice."""
SHADES = ("red", "orange", "yellow", "green", "blue", "purple", "white", "brown", "grey")


@dataclass
class Table:
    """A picture of the table, and what stands on it.

    Attributes:
        colours: (3, 1, H, W) without the things of ``free``.
        free: things that may be taken, with their words; their places are x and y, which their shadow shares.
        edge: y of the table's far edge.
        wood: whether it is of wood, for captions.
    """

    colours: Tensor
    free: list[tuple[Thing, str]]
    edge: float
    words: str


def draw_table(stage: Stage) -> Table:
    """Wall, table, fittings and one to four things that may be taken."""
    one = stage.still()
    edge = stage.draw(-1.25, -0.2)
    colours, words = _ground(one, edge)
    for thing in _fittings(one, edge):
        colours, _ = put(one, colours, thing)
    free = []
    places = _places(stage, int(stage.random.integers(2, 5)), edge)
    for x, y in places:
        free.append(draw_tool(stage, x, y))
    colours = graded(one, colours)
    return Table(colours, free, edge, words)


def _ground(stage: Stage, edge: float) -> tuple[Tensor, str]:
    """(3, 1, H, W) of the wall and the table top, whose far edge may slope."""
    x, y = stage.points(2).unbind(-1)
    wall = _wall(stage)
    scale = wall.picture.aspect / stage.aspect * stage.draw(0.5, 0.95)
    behind = wall.at(torch.stack([x, y + 0.4], -1) * scale, stage.pixel / 2 * scale)
    top, words = _top(stage)
    slope = stage.draw(-0.18, 0.18)
    distance = (y - edge - slope * x) / (stage.pixel / 2)
    # Seen from above at a slant: what is farther up is farther away.
    eye = -edge + stage.draw(1.2, 3.0)
    depth = eye / (y + eye).clamp_min(0.05)
    turn = stage.draw(-0.9, 0.9)
    across, away = x * depth, depth * eye * 0.5
    grain = stage.draw(0.6, 2.2)
    points = torch.stack(
        [np.cos(turn) * across - np.sin(turn) * away, np.sin(turn) * across + np.cos(turn) * away], -1
    )
    table = top.at_sizes(points * grain, depth.square() * (grain * stage.pixel / 2))
    light = 1 + stage.draw(-0.18, 0.18) * x / stage.aspect + stage.draw(-0.1, 0.15) * y
    gap = 1 - 0.45 * torch.exp(-((distance * stage.pixel / 0.12) ** 2))  # darker where the two meet
    colours = torch.lerp(behind, table * light, (distance + 0.5).clamp(0, 1)) * gap
    return torch.nn.functional.avg_pool2d(colours[:, 0][None], 2)[0][:, None], words


def _wall(stage: Stage) -> Material:
    if stage.chance(0.4):
        return stage.photograph()
    material = stage.texture("plaster", "plain", "tiled", "brick", "wooden", "striped", "book")
    colour = COLOURS[stage.choose(TABLES)]
    return stage.painted(material, colour, stage.draw(0.3, 1.0))


def _top(stage: Stage) -> tuple[Material, str]:
    kind = stage.choose(("wooden", "wooden", "wooden", "plain", "plaster", "tiled", "photograph"))
    if kind == "photograph":
        return stage.photograph("a cup on a table", "gravel", "a tiled wall", "tissue"), "a textured table"
    material = stage.texture(kind)
    name = stage.choose(("orange", "brown", "brown", "white", "grey") if kind == "wooden" else TABLES)
    colour = np.array(COLOURS[name]) * stage.draw(0.75, 1.15)
    return stage.painted(material, tuple(colour), stage.draw(0.75, 1.0), stage.draw(0.5, 1.2)), with_article(
        f"{name} table"
    )


def _places(stage: Stage, count: int, edge: float) -> list[tuple[float, float]]:
    """Places on the table that keep some distance from each other."""
    found: list[tuple[float, float]] = []
    for _ in range(60):
        x, y = stage.draw(-0.75, 0.75) * stage.aspect, stage.draw(max(edge + 0.35, -0.5), 0.75)
        if all(np.hypot(x - a, y - b) > 0.42 for a, b in found):
            found.append((x, y))
        if len(found) == count:
            break
    return found


def draw_tool(stage: Stage, x: float, y: float) -> tuple[Thing, str]:
    """Something to take at a place, and its words."""
    name = stage.choose(tuple(TOOLS))
    outline, radius = TOOLS[name]
    colour = {"banana": "yellow", "carrot": "orange"}.get(name) or stage.choose(SHADES)
    angle = stage.draw(-3.1, 3.1) if name in FLAT else stage.draw(-0.3, 0.3)
    thing = Thing(
        outline,
        _paint(stage, colour, 0.85 if name not in ("can", "box", "bowl") else 0.6),
        radius * stage.draw(1.0, 1.6),
        x,
        y,
        angle,
        grain=stage.draw(0.8, 2.5),
        middle=(stage.draw(-0.6, 0.6), stage.draw(-0.6, 0.6)),
        round={"ball": 1.0, "bowl": 0.25, "can": 0.5, "cup": 0.45, "bottle": 0.4}.get(name, 0.2),
        shadow=(0.03, 0.035, stage.draw(0.35, 0.6)),
        gloss=stage.draw(0.2, 0.6) if name in ("ball", "cup", "bottle") else 0.0,
    )
    return thing, f"{colour} {name}"


def _paint(stage: Stage, colour: str, share: float) -> Material:
    material = stage.material(0.5) if stage.chance(0.5) else stage.texture("plain", "plaster")
    return stage.painted(material, COLOURS[colour], share, stage.draw(0.5, 1.0))


def _fittings(stage: Stage, edge: float) -> list[Thing]:
    """What nobody takes: cloths, burners, plates, boxes and cans along the wall."""
    found: list[Thing] = []
    wide = stage.aspect
    for _ in range(int(stage.random.integers(0, 3))):  # cloths and boards that lie flat
        found.append(
            Thing(
                outlines.block(0.95, stage.draw(0.5, 0.9), 0.05),
                _paint(stage, stage.choose(SHADES), stage.draw(0.5, 1.0)),
                stage.draw(0.22, 0.5),
                stage.draw(-wide, wide),
                stage.draw(max(edge + 0.3, -0.7), 1.0),
                stage.draw(-0.5, 0.5),
                grain=stage.draw(0.6, 2.0),
                round=0.04,
                shadow=(0.01, 0.015, 0.4),
                soft=0.08,
            )
        )
    if stage.chance(0.4):
        found += _burners(stage, edge)
    if edge > -1.0:
        for _ in range(int(stage.random.integers(1, 6))):  # what stands along the wall
            found.append(_standing(stage, edge))
    if stage.chance(0.5):
        found += _front(stage)
    return found


def _burners(stage: Stage, edge: float) -> list[Thing]:
    """A stove's plate with rings, or a sink."""
    x, y, size = stage.draw(-1, 1) * stage.aspect, stage.draw(edge + 0.3, 0.9), stage.draw(0.35, 0.6)
    dark = _paint(stage, "black" if stage.chance(0.7) else "grey", 1.0)
    metal = stage.painted(stage.texture("plain"), (0.62, 0.63, 0.66))
    plate = Thing(outlines.block(1, 0.75, 0.12), dark, size, x, y, round=0.05, shadow=(0.01, 0.02, 0.4), soft=0.1)
    rings = [
        Thing(outlines.ring(0.12), metal, size * 0.33, x + dx * size, y + dy * size, round=0.08, shadow=None)
        for dx, dy in ((-0.48, -0.3), (0.48, -0.3), (-0.48, 0.35), (0.48, 0.35))
    ]
    return [plate, *rings]


def _standing(stage: Stage, edge: float) -> Thing:
    high, wide = stage.draw(0.6, 1.0), stage.draw(0.35, 0.9)
    size = stage.draw(0.12, 0.3)
    return Thing(
        outlines.block(wide, high, stage.draw(0.05, 0.3)),
        stage.material(0.8),
        size,
        stage.draw(-1, 1) * stage.aspect,
        edge - high * size + stage.draw(0.08, 0.3),
        0.0,
        grain=stage.draw(0.8, 2.5),
        middle=(stage.draw(-0.6, 0.6), stage.draw(-0.6, 0.6)),
        round=stage.draw(0.05, 0.4),
        shadow=(0.04, 0.03, 0.4),
    )


def _front(stage: Stage) -> list[Thing]:
    """The table's near edge and what is below it, across the bottom of the picture."""
    material = _paint(stage, stage.choose(("grey", "white", "blue", "black")), 0.9)
    tilt, y = stage.draw(-0.25, 0.25), stage.draw(0.85, 1.25) + 0.6
    return [
        Thing(
            outlines.block(8.0, 1.0, 0.02),
            material,
            0.6,
            0.0,
            y,
            tilt,
            round=0.05,
            shadow=(0.0, -0.02, 0.35),
            soft=0.1,
        )
    ]
