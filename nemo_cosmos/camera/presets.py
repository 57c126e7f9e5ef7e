"""Trajectories by name: a move of the camera, how much of it, and how it speeds up.

Every move starts at the identity, in OpenCV axes: x right, y down, z forwards. Lengths are in a unit of the user's
choice, in which the point that orbits turn about is 1 away; networks see lengths divided by the trajectory's size.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from nemo_cosmos.camera.csv_poses import DEFAULT_FOV, default_intrinsics
from nemo_cosmos.camera.rays import Cameras
from nemo_cosmos.camera.rotations import about_axis
from nemo_cosmos.errors import InputError

Kind = Literal["angle", "length", "zoom", "none"]
Options = Mapping[str, float]
LARGEST_AMOUNT = 1000.0
EASINGS: dict[str, Callable[[Tensor], Tensor]] = {
    "linear": lambda u: u,
    "smooth": lambda u: u * u * (3 - 2 * u),
    "in": lambda u: u * u,
    "out": lambda u: u * (2 - u),
}
"""Share of the move at a share of the time: even, slow at both ends, slow at the start, slow at the end."""


@dataclass(frozen=True)
class Preset:
    """A move by name.

    Attributes:
        about: what the camera does, for people.
        kind: what the amount is: radians, a length, or how much larger the focal length becomes.
        amount: where none is given.
        poses: (N,) amounts reached and options -> (N, 4, 4) poses; the share of the move is amount over the whole.
        options: names and defaults of its options.
    """

    about: str
    kind: Kind
    amount: float
    poses: Callable[[Tensor, float, Options], Tensor]
    options: Options = field(default_factory=dict)


def _still(reached: Tensor) -> Tensor:
    return torch.eye(4, dtype=torch.float64).repeat(len(reached), 1, 1)


def _turn(axis: int, sign: int) -> Callable[[Tensor, float, Options], Tensor]:
    """A camera that turns on the spot."""

    def poses(reached: Tensor, whole: float, options: Options) -> Tensor:
        turned = _still(reached)
        turned[:, :3, :3] = about_axis(axis, sign * reached)
        return turned

    return poses


def _move(axis: int, sign: int) -> Callable[[Tensor, float, Options], Tensor]:
    """A camera that moves along a line without turning."""

    def poses(reached: Tensor, whole: float, options: Options) -> Tensor:
        moved = _still(reached)
        moved[:, axis, 3] = sign * reached
        return moved

    return poses


def _orbit(axis: int, sign: int) -> Callable[[Tensor, float, Options], Tensor]:
    """A camera on a circle about a point in front of it, which stays in the middle of the picture."""

    def poses(reached: Tensor, whole: float, options: Options) -> Tensor:
        turned = _turn(axis, sign)(reached, whole, options)
        ahead = torch.tensor([0.0, 0.0, options["distance"]], dtype=torch.float64)
        turned[:, :3, 3] = ahead - turned[:, :3, :3] @ ahead
        return turned

    return poses


def _spiral(reached: Tensor, whole: float, options: Options) -> Tensor:
    """A camera on a widening spiral across the view, which looks at a point in front of it."""
    angle = 2 * math.pi * options["turns"] * (reached / whole if whole else reached)
    spiral = _still(reached)
    spiral[:, 0, 3], spiral[:, 1, 3] = reached * angle.cos(), -reached * angle.sin()
    ahead = torch.tensor([0.0, 0.0, options["distance"]], dtype=torch.float64)
    forward = torch.nn.functional.normalize(ahead - spiral[:, :3, 3], dim=-1)
    right = torch.nn.functional.normalize(
        torch.linalg.cross(torch.tensor([[0.0, 1.0, 0.0]], dtype=torch.float64).expand_as(forward), forward), dim=-1
    )
    spiral[:, :3, :3] = torch.stack([right, torch.linalg.cross(forward, right), forward], dim=-1)
    return spiral


def _hold(reached: Tensor, whole: float, options: Options) -> Tensor:
    return _still(reached)


_DISTANCE = {"distance": 1.0}
PRESETS: dict[str, Preset] = {
    "static": Preset("stands still", "none", 0.0, _hold),
    "orbit_left": Preset("circles to the left about what is ahead", "angle", 0.5, _orbit(1, 1), _DISTANCE),
    "orbit_right": Preset("circles to the right about what is ahead", "angle", 0.5, _orbit(1, -1), _DISTANCE),
    "orbit_up": Preset("circles upwards about what is ahead", "angle", 0.3, _orbit(0, -1), _DISTANCE),
    "orbit_down": Preset("circles downwards about what is ahead", "angle", 0.3, _orbit(0, 1), _DISTANCE),
    "dolly_in": Preset("moves forwards", "length", 0.5, _move(2, 1)),
    "dolly_out": Preset("moves backwards", "length", 0.5, _move(2, -1)),
    "truck_left": Preset("moves to the left", "length", 0.5, _move(0, -1)),
    "truck_right": Preset("moves to the right", "length", 0.5, _move(0, 1)),
    "crane_up": Preset("moves upwards", "length", 0.5, _move(1, -1)),
    "crane_down": Preset("moves downwards", "length", 0.5, _move(1, 1)),
    "pan_left": Preset("turns to the left on the spot", "angle", 0.5, _turn(1, -1)),
    "pan_right": Preset("turns to the right on the spot", "angle", 0.5, _turn(1, 1)),
    "tilt_up": Preset("turns upwards on the spot", "angle", 0.3, _turn(0, 1)),
    "tilt_down": Preset("turns downwards on the spot", "angle", 0.3, _turn(0, -1)),
    "roll_left": Preset("leans to the left", "angle", 0.3, _turn(2, -1)),
    "roll_right": Preset("leans to the right", "angle", 0.3, _turn(2, 1)),
    "spiral": Preset(
        "winds outwards, with its eye on what is ahead", "length", 0.3, _spiral, {"distance": 1.0, "turns": 2.0}
    ),
    "zoom_in": Preset("shows a smaller part, larger", "zoom", 0.5, _hold),
    "zoom_out": Preset("shows a larger part, smaller", "zoom", 0.5, _hold),
}


@dataclass(frozen=True)
class Move:
    """A preset with what was asked of it."""

    name: str
    amount: float
    ease: str = "linear"
    options: Options = field(default_factory=dict)


def parse_moves(spec: str) -> list[Move]:
    """Moves of ``NAME[:AMOUNT][,OPTION=VALUE]...``, several at once joined by ``+``.

    Amounts and options are numbers; ``deg`` after an angle means degrees. Options are those of the preset, and
    ``ease``, one of ``EASINGS``.

    Raises:
        InputError: an unknown preset (the nearest is named) or option, or an amount out of range.
    """
    return [_parse_move(part, spec) for part in re.split(r"\+(?=\s*[A-Za-z_])", spec)]


def _parse_move(text: str, spec: str) -> Move:
    head, *settings = (part.strip() for part in text.split(","))
    name, colon, amount = (part.strip() for part in head.partition(":"))
    preset = PRESETS.get(name)
    if preset is None:
        near = difflib.get_close_matches(name, PRESETS, n=1, cutoff=0.4)
        hint = f"did you mean {near[0]}? It is" if near else "expected"
        raise InputError(f"unknown trajectory {name[:60]!r}: {hint} one of {', '.join(PRESETS)}, or a pose file")
    options, ease = dict(preset.options), "linear"
    for setting in settings:
        key, _, value = (part.strip() for part in setting.partition("="))
        if key == "ease" and value in EASINGS:
            ease = value
        elif key == "ease":
            raise InputError(f"trajectory {spec!r}: ease={value[:40]}, expected one of {', '.join(EASINGS)}")
        elif key in options:
            options[key] = _number(value, "none", f"trajectory {spec!r}: {key}")
        else:
            known = ", ".join([*options, "ease"])
            raise InputError(f"trajectory {spec!r}: {name} has no option {key[:40]!r}, it has {known}")
    if options.get("distance", 1.0) <= 0:
        raise InputError(f"trajectory {spec!r}: distance={options['distance']:g}, expected a positive length")
    where = f"trajectory {spec!r}: amount of {name}"
    if colon and preset.kind == "none":
        raise InputError(f"trajectory {spec!r}: {name} has no amount")
    return Move(name, _number(amount, preset.kind, where) if colon else preset.amount, ease, options)


def _number(text: str, kind: Kind, where: str) -> float:
    degrees = kind == "angle" and text.endswith("deg")
    try:
        value = float(text.removesuffix("deg") if degrees else text)
    except ValueError:
        unit = {"angle": " (radians, or 30deg)", "length": " (a length)", "zoom": " (0.5: 1.5 times as large)"}
        raise InputError(f"{where} is {text[:40]!r}, expected a number{unit.get(kind, '')}") from None
    value = math.radians(value) if degrees else value
    if not abs(value) <= LARGEST_AMOUNT or (kind == "zoom" and value < 0):
        least = 0 if kind == "zoom" else -LARGEST_AMOUNT
        raise InputError(f"{where} is {text[:40]}, expected {least:g} to {LARGEST_AMOUNT:g}")
    return value


def preset_cameras(spec: str, frames: int, size: tuple[int, int], *, fov: float = DEFAULT_FOV) -> Cameras:
    """The cameras of a trajectory by name; the first pose is the identity, and the last has the whole amount.

    Moves joined by ``+`` happen at once, each in the axes of those before it.

    Args:
        spec: as in :func:`parse_moves`.
        frames: number of poses, at least 1.
        size: height and width of the pictures.
        fov: degrees that the first picture shows from left to right.

    Raises:
        InputError: as :func:`parse_moves`, or no frames.
    """
    if frames < 1:
        raise InputError(f"a trajectory of {frames} frames: expected at least 1")
    time = torch.linspace(0, 1, frames, dtype=torch.float64)
    poses = torch.eye(4, dtype=torch.float64).repeat(frames, 1, 1)
    intrinsics = torch.tensor(default_intrinsics(size, fov), dtype=torch.float64).repeat(frames, 1)
    for move in parse_moves(spec):
        preset, reached = PRESETS[move.name], move.amount * EASINGS[move.ease](time)
        poses = poses @ preset.poses(reached, move.amount, move.options)
        if preset.kind == "zoom":
            factor = 1 + reached
            intrinsics[:, :2] *= (factor if move.name == "zoom_in" else 1 / factor)[:, None]
    return Cameras(poses, intrinsics, size)
