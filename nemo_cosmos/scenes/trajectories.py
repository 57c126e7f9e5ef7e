"""Smooth ways of a camera through a room."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from nemo_cosmos.scenes.cameras import angles_to, looking
from nemo_cosmos.scenes.room import Room

CLEARANCE = 0.35
"""Metres that a camera keeps from walls and furniture."""
ATTEMPTS = 200

Way = Callable[["Stand", float], tuple[np.ndarray, float, float]]
"""Where the camera is at a share 0..1 of its way: position, yaw and pitch."""


class Stand:
    """Where a way begins, and how far it goes.

    Args:
        position: (3,) in metres.
        yaw, pitch: radians.
        amount: scale of the whole way; 1 is about a metre, or half a radian.
        focus: metres ahead to what is looked at, for ways about it.
    """

    def __init__(self, position: np.ndarray, yaw: float, pitch: float, amount: float, focus: float) -> None:
        self.position, self.yaw, self.pitch, self.amount, self.focus = position, yaw, pitch, amount, focus
        pose = looking(position, yaw, pitch)
        self.right, self.ahead = pose[:3, 0], pose[:3, 2]
        self.target = position + self.ahead * focus

    def towards_target(self, position: np.ndarray) -> tuple[np.ndarray, float, float]:
        return position, *angles_to(position, self.target)


def _orbit(sign: float) -> Way:
    """Around what is in the middle of the picture, which stays there; ``sign`` 1: the camera goes to its left."""

    def way(stand: Stand, share: float) -> tuple[np.ndarray, float, float]:
        angle = -sign * 0.6 * stand.amount * share
        turn = np.array([[math.cos(angle), -math.sin(angle), 0], [math.sin(angle), math.cos(angle), 0], [0, 0, 1]])
        return stand.towards_target(stand.target + turn @ (stand.position - stand.target))

    return way


def _slide(direction: Callable[[Stand], np.ndarray]) -> Way:
    """Straight, looking ahead as at the start."""
    return lambda stand, share: (
        stand.position + direction(stand) * stand.amount * 1.2 * share,
        stand.yaw,
        stand.pitch,
    )


def _pan(sign: float) -> Way:
    """Turning on the spot; ``sign`` 1: to the left."""
    return lambda stand, share: (stand.position, stand.yaw + sign * 0.7 * stand.amount * share, stand.pitch)


def _crane(sign: float) -> Way:
    """Upwards or downwards, looking at the same thing."""
    return lambda stand, share: stand.towards_target(
        stand.position + np.array([0, 0, sign * 0.8 * stand.amount * share])
    )


def _spiral(stand: Stand, share: float) -> tuple[np.ndarray, float, float]:
    """Ahead in a widening circle, looking at the same thing."""
    radius, angle = 0.35 * stand.amount * share, 2 * math.pi * share
    aside = stand.right * math.cos(angle) + np.array([0, 0, math.sin(angle)])
    return stand.towards_target(stand.position + stand.ahead * 0.6 * stand.amount * share + aside * radius)


def _mix(first: Way, second: Way) -> Way:
    """Both at once, each half as far."""

    def way(stand: Stand, share: float) -> tuple[np.ndarray, float, float]:
        a, b = first(stand, share * 0.6), second(stand, share * 0.6)
        turn = [one + other - start for one, other, start in zip(a[1:], b[1:], (stand.yaw, stand.pitch), strict=True)]
        return a[0] + b[0] - stand.position, turn[0], turn[1]

    return way


WAYS: dict[str, Way] = {
    "orbit_left": _orbit(1),
    "pan_right": _pan(-1),
    "dolly_in": _slide(lambda stand: stand.ahead),
    "crane_up": _crane(1),
    "orbit_right": _orbit(-1),
    "truck_left": _slide(lambda stand: -stand.right),
    "pan_left": _pan(1),
    "dolly_out": _slide(lambda stand: -stand.ahead),
    "crane_down": _crane(-1),
    "truck_right": _slide(lambda stand: stand.right),
    "spiral": _spiral,
    "dolly_in_pan_left": _mix(_slide(lambda stand: stand.ahead), _pan(1)),
    "truck_right_crane_up": _mix(_slide(lambda stand: stand.right), _crane(1)),
    "orbit_left_dolly_in": _mix(_orbit(1), _slide(lambda stand: stand.ahead)),
    "truck_left_pan_right": _mix(_slide(lambda stand: -stand.right), _pan(-1)),
}


def draw_trajectory(random: np.random.Generator, room: Room, kind: str, frames: int) -> np.ndarray:
    """(frames, 4, 4) poses, camera to world with the axes of OpenCV, along one of :data:`WAYS`.

    Where it starts, where it looks, how far it goes and how it gathers speed are drawn; it stays clear of walls and
    furniture.
    """
    length, width, height = room.size
    for attempt in range(ATTEMPTS):
        position = np.array(
            [random.uniform(0.2, 0.8) * length, random.uniform(0.2, 0.8) * width, random.uniform(1.1, 0.62 * height)]
        )
        # Towards the far side of the room, so that there is something to see.
        yaw, _ = angles_to(position, np.array([length / 2, width / 2, position[2]]))
        yaw += random.uniform(-0.6, 0.6)
        amount = random.uniform(0.7, 1.3) * 0.985**attempt
        stand = Stand(position, yaw, random.uniform(-0.22, -0.06), amount, random.uniform(1.8, 2.6))
        ease = random.uniform(0, 1)
        shares = [_eased(number / max(frames - 1, 1), ease) for number in range(frames)]
        steps = [WAYS[kind](stand, share) for share in shares]
        if room.clearance(np.array([step[0] for step in steps])) >= CLEARANCE:
            return np.stack([looking(*step) for step in steps])
    raise RuntimeError(f"no way of kind {kind} through a room of {room.size} in {ATTEMPTS} attempts")


def _eased(share: float, ease: float) -> float:
    """From even speed (``ease`` 0) to a slow start and end (1)."""
    return (1 - ease) * share + ease * share * share * (3 - 2 * share)
