"""A robot arm that reaches, grasps and carries over a table that stands still."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from nemo_cosmos.scenes.words import with_article
from nemo_cosmos.scenes.worlds.outlines import segment
from nemo_cosmos.scenes.worlds.paths import shake, through
from nemo_cosmos.scenes.worlds.pictures import Material
from nemo_cosmos.scenes.worlds.stage import Clip, Stage, as_levels, blended
from nemo_cosmos.scenes.worlds.table import Table, draw_table
from nemo_cosmos.scenes.worlds.things import Thing, put

NOTICED = 0.12
"""Ways shorter than this are not named in captions; a frame's height is 2."""
Point = tuple[np.ndarray, np.ndarray]


@dataclass
class Task:
    """What a hand does, all (T,).

    Attributes:
        x, y: where the hand is over the table, as its shadow shows.
        height: of the hand above the table.
        open: how far the fingers are apart, 0..1.
        thing_x, thing_y, thing_height: the same of what it carries.
    """

    x: np.ndarray
    y: np.ndarray
    height: np.ndarray
    open: np.ndarray
    thing_x: np.ndarray
    thing_y: np.ndarray
    thing_height: np.ndarray


@dataclass
class ArmClip:
    """Frames before they are lit and encoded, (3, T, H, W), and (T, H, W) bool where something moves or its shadow
    falls; elsewhere all frames are the same."""

    colours: Tensor
    moved: Tensor
    caption: str


def draw_task(stage: Stage, start: tuple[float, float], goal: tuple[float, float]) -> Task:
    """Reach, grasp, lift, carry, lower, let go and leave, of which the clip shows a part; or push; or only reach."""
    kind = stage.choose(("carry", "carry", "carry", "carry", "push", "reach"))
    pace = stage.draw(0.75, 1.5)
    # Ends of: waiting, reaching, going down, grasping, lifting, carrying, lowering, letting go, leaving.
    lasts = np.array([0.2, 1.3, 0.7, 0.4, 0.6, 1.5, 0.6, 0.4, 1.0]) * pace * stage.random.uniform(0.8, 1.25, 9)
    knots = np.concatenate([[0.0], np.cumsum(lasts)])
    shown = (stage.frames - 1) / stage.fps
    # A short clip shows some part, a long one begins somewhere before the grasp.
    latest = max(knots[-1] - shown, 0.4 * knots[3] if shown < knots[-1] else 0.0)
    times = stage.seconds + stage.draw(0, latest)
    home_x, home_y = stage.draw(-0.7, 0.7) * stage.aspect, stage.draw(-0.6, 0.5)
    away_x, away_y = stage.draw(-0.7, 0.7) * stage.aspect, stage.draw(-0.6, 0.4)
    up = stage.draw(0.25, 0.5)
    low = 0.0 if kind != "push" else stage.draw(0.0, 0.03)
    lift = up if kind != "push" else low
    x = [home_x, home_x, *[start[0]] * 4, *[goal[0]] * 3, away_x]
    y = [home_y, home_y, *[start[1]] * 4, *[goal[1]] * 3, away_y]
    height = [up, up, up * 0.8, low, low, lift, lift, low, low, up]
    fingers = [1.0, 1.0, 1.0, 1.0, 0.3, 0.3, 0.3, 0.3, 1.0, 0.8]
    carried = [0.0] * 5 + [lift - low, lift - low] + [0.0] * 3
    along = [start[0]] * 6 + [goal[0]] * 4, [start[1]] * 6 + [goal[1]] * 4
    if kind == "reach":
        carried, along, fingers = [0.0] * 10, ([start[0]] * 10, [start[1]] * 10), [1.0] * 10
    task = Task(*(through(times, knots, np.array(v)) for v in (x, y, height, fingers, *along, carried)))
    return task


def _solved(base: Point, wrist: Point, lengths: tuple[float, float], bend: float) -> Point:
    """Elbow of two links between two points, (T,) each; links that are too short or long are stretched."""
    dx, dy = wrist[0] - base[0], wrist[1] - base[1]
    far = np.maximum(np.hypot(dx, dy), 1e-3)
    along = np.clip((far**2 + lengths[0] ** 2 - lengths[1] ** 2) / (2 * far), -lengths[0], lengths[0])
    aside = bend * np.sqrt(np.maximum(lengths[0] ** 2 - along**2, 0))
    return base[0] + (dx * along - dy * aside) / far, base[1] + (dy * along + dx * aside) / far


@dataclass
class Arm:
    """How an arm looks and where it stands.

    Attributes:
        base: (x, y) beyond the frame.
        lengths: of the upper and the lower link.
        bend: 1 or -1, to which side the elbow goes.
        thick: half width of the upper link; the others are thinner.
        metal, joint: what links and joints are covered with.
        hand: length of the hand with its fingers.
        lean: radians that the hand leans from straight down.
    """

    base: tuple[float, float]
    lengths: tuple[float, float]
    bend: float
    thick: float
    metal: Material
    joint: Material
    hand: float
    lean: float

    def parts(self, stage: Stage, task: Task) -> list[tuple[Point, Point, tuple[float, float], Material]]:
        """Rods (start, stop, half widths, material) of every frame, the hindmost first."""
        tip = task.x, task.y - task.height
        lean = self.lean + 0.25 * (tip[0] - self.base[0]) / stage.aspect
        ahead = np.sin(lean), np.cos(lean)
        palm = tip[0] - ahead[0] * self.hand * 0.5, tip[1] - ahead[1] * self.hand * 0.5
        wrist = tip[0] - ahead[0] * self.hand * 1.15, tip[1] - ahead[1] * self.hand * 1.15
        base = np.full(stage.frames, self.base[0]), np.full(stage.frames, self.base[1])
        elbow = _solved(base, wrist, self.lengths, self.bend)
        thick = self.thick
        found = [
            (base, elbow, (thick, thick * 0.85), self.metal),
            (elbow, elbow, (thick * 1.05, thick * 1.05), self.joint),
            (elbow, wrist, (thick * 0.8, thick * 0.6), self.metal),
            (wrist, wrist, (thick * 0.75, thick * 0.75), self.joint),
            (wrist, palm, (thick * 0.6, thick * 0.7), self.metal),
        ]
        half = thick * (0.35 + 0.75 * task.open)
        for side in (-1.0, 1.0):
            aside = side * half * ahead[1], -side * half * ahead[0]
            root = palm[0] + aside[0], palm[1] + aside[1]
            end = tip[0] + aside[0] * 0.9, tip[1] + aside[1] * 0.9
            found.append((palm, root, (thick * 0.35, thick * 0.3), self.joint))
            found.append((root, end, (thick * 0.3, thick * 0.2), self.joint))
        return found


def draw_arm(stage: Stage, reach: float) -> Arm:
    """An arm that comes in from above, or from a side, long enough to reach ``reach`` from the middle."""
    side = stage.choose(("top", "top", "top", "left", "right"))
    if side == "top":
        base = stage.draw(-0.9, 0.9) * stage.aspect, stage.draw(-2.1, -1.3)
    else:
        base = (-1 if side == "left" else 1) * (stage.aspect + stage.draw(0.3, 0.7)), stage.draw(-1.4, -0.2)
    far = math.hypot(*base) + reach
    share = stage.draw(0.45, 0.55)
    length = far * stage.draw(0.95, 1.1)
    shade = stage.choose(("black", "black", "black", "grey", "white", "orange", "blue"))
    tone = {
        "black": (0.13, 0.13, 0.14),
        "grey": (0.45, 0.46, 0.48),
        "white": (0.82, 0.82, 0.8),
        "orange": (0.85, 0.42, 0.1),
        "blue": (0.15, 0.3, 0.6),
    }[shade]
    cover = stage.texture("plain", "carpet", "crate", "asphalt", "tiled")
    return Arm(
        base,
        (length * share, length * (1 - share)),
        1.0 if stage.chance(0.5) else -1.0,
        stage.draw(0.11, 0.2),
        stage.painted(cover, tone, 1.0, stage.draw(0.4, 1.0)),
        stage.painted(cover, (0.1, 0.1, 0.11), 1.0, stage.draw(0.3, 0.9)),
        stage.draw(0.28, 0.42),
        stage.draw(-0.35, 0.35),
    )


def paint_arm(stage: Stage, colours: Tensor, arm: Arm, task: Task) -> tuple[Tensor, Tensor]:
    """The frames with the arm and its shadow, and (T, H, W) bool where either shows."""
    x, y = stage.points().unbind(-1)
    parts = arm.parts(stage, task)
    near = _nearest(stage, x - 0.12, y - stage.over_time(0.12 + task.height), [*parts[2:3], *parts[4:5]])
    dark = 0.38 * (0.5 - near / 0.16).clamp(0, 1)
    moved = dark > 0
    colours = colours * (1 - dark)
    for start, stop, radii, material in parts:
        distance, along, across = segment(x, y, _at(stage, start), _at(stage, stop), radii)
        share = (0.5 - distance / (1.2 * stage.pixel)).clamp(0, 1)
        colours = blended(colours, share, _metal(stage, material, along, across, radii))
        moved |= share > 0
    return colours, moved


def _at(stage: Stage, point: Point) -> tuple[Tensor, Tensor]:
    return stage.over_time(point[0]), stage.over_time(point[1])


def _nearest(
    stage: Stage, x: Tensor, y: Tensor, parts: list[tuple[Point, Point, tuple[float, float], Material]]
) -> Tensor:
    distances = [segment(x, y, _at(stage, start), _at(stage, stop), radii)[0] for start, stop, radii, _ in parts]
    return torch.stack(distances).amin(0)


def _metal(
    stage: Stage, material: Material, along: Tensor, across: Tensor, radii: tuple[float, float]
) -> Callable[[Tensor], Tensor]:
    """Colours of a round rod: bright along a line, with a dark band near its ends."""

    def found(where: Tensor) -> Tensor:
        u, v = across.flatten()[where], along.flatten()[where]
        colours = material.at_some(torch.stack([u * radii[0] * 2, v * 1.6], -1), stage.pixel * 2)
        shade = 0.62 + 0.55 * (1 - (u + 0.35).square()).clamp_min(0)
        band = ((v - 0.5).abs() - 0.36).abs() < 0.03
        return colours * shade * torch.where(band, 0.6, 1.0) + 0.1 * torch.exp(-(((u + 0.45) / 0.16) ** 2))

    return found


def _carried(thing: Thing, task: Task) -> Thing:
    """The thing on its way; its shadow stays on the table."""
    x, y, height = task.thing_x, task.thing_y, task.thing_height
    assert thing.shadow is not None
    thing.x, thing.y = x, y - height
    thing.scale = 1 + 0.12 * height
    thing.shadow = thing.shadow[0] + 0.3 * height, thing.shadow[1] + height + 0.1 * height, thing.shadow[2]
    return thing


def draw_arm_clip(stage: Stage) -> ArmClip:
    """An arm over a table, not yet lit."""
    table = draw_table(stage)
    taken, word = table.free[0]
    start = float(taken.x), float(taken.y)
    goal = _goal(stage, table, start)
    task = draw_task(stage, start, goal)
    task.x, task.y = task.x + shake(stage, 0.006), task.y + shake(stage, 0.006)
    colours = table.colours
    one = stage.still()
    for thing, _ in table.free[1:]:
        colours, _ = put(one, colours, thing)
    colours = colours.expand(-1, stage.frames, -1, -1)
    colours, moved = put(stage, colours, _carried(taken, task))
    arm = draw_arm(stage, 0.9)
    colours, also = paint_arm(stage, colours, arm, task)
    return ArmClip(colours, moved | also, caption(task, word, table.words))


def _goal(stage: Stage, table: Table, start: tuple[float, float]) -> tuple[float, float]:
    """A place elsewhere on the table, sometimes that of another thing."""
    if len(table.free) > 1 and stage.chance(0.3):
        thing = table.free[1][0]
        return float(thing.x), float(thing.y) - 0.05
    for _ in range(20):
        goal = stage.draw(-0.75, 0.75) * stage.aspect, stage.draw(max(table.edge + 0.35, -0.5), 0.75)
        if math.hypot(goal[0] - start[0], goal[1] - start[1]) > 0.4:
            break
    return goal


def caption(task: Task, thing: str, table: str) -> str:
    """What the clip shows of the task."""
    across, up = float(task.thing_x[-1] - task.thing_x[0]), task.thing_height
    said = []
    if up.max() - up[0] > NOTICED:
        said.append("picks up")
    if abs(across) > NOTICED or abs(task.thing_y[-1] - task.thing_y[0]) > NOTICED:
        said.append("moves")
    if up.max() - up[-1] > NOTICED:
        said.append("puts down")
    if not said:
        far = np.hypot(task.x - task.thing_x, task.y - task.thing_y)
        closer, away = far[0] - far[-1] > NOTICED, far[-1] - far[0] > NOTICED
        said = ["moves toward" if closer else "moves away from" if away else "moves over"]
    words = f"a robot arm {' and '.join(said)} {with_article(thing)}"
    if "moves" in said and abs(across) > NOTICED:
        words += f" to the {'right' if across > 0 else 'left'}"
    return f"{words} on {table}"


def render_arm(stage: Stage) -> Clip:
    """An arm over a table; everything else, and the light, stands still."""
    clip = draw_arm_clip(stage)
    return Clip(as_levels(clip.colours), clip.caption)
