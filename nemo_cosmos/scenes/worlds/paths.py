"""Smooth ways through a clip's time."""

from __future__ import annotations

import math

import numpy as np

from nemo_cosmos.scenes.worlds.stage import Stage


def progress(stage: Stage) -> np.ndarray:
    """(T,) from 0 to 1: even, gathering speed, slowing down, both, or there and back."""
    share = np.linspace(0, 1, stage.frames)
    kind = stage.choose(("even", "even", "eased", "faster", "slower", "back"))
    if kind == "eased":
        return share * share * (3 - 2 * share)
    if kind == "faster":
        return share ** stage.draw(1.3, 2.2)
    if kind == "slower":
        return 1 - (1 - share) ** stage.draw(1.3, 2.2)
    if kind == "back":
        return np.sin(np.pi * share * stage.draw(0.85, 1.0))
    return share


def amount(stage: Stage, per_second: tuple[float, float], most: float) -> float:
    """How far something goes in the clip at a speed drawn evenly among its orders, at most ``most``."""
    low, high = per_second
    speed = math.exp(stage.draw(math.log(low), math.log(high)))
    return min(speed * (stage.frames - 1) / stage.fps, most * stage.draw(0.6, 1.0))


def shake(stage: Stage, size: float) -> np.ndarray:
    """(T,) of a hand that holds still as well as it can; mean 0, about ``size`` large."""
    seconds = stage.seconds
    rates = stage.random.uniform(0.3, 2.5, 4)
    waves = [np.sin(2 * np.pi * (rate * seconds + stage.draw(0, 1))) / (1 + rate) for rate in rates]
    return size * np.sum(waves, axis=0)


def minimum_jerk(share: np.ndarray) -> np.ndarray:
    """The way of a hand from 0 to 1: 10 s^3 - 15 s^4 + 6 s^5 (Flash and Hogan 1985), still before 0 and after 1."""
    share = np.clip(share, 0, 1)
    return share**3 * (10 - 15 * share + 6 * share**2)


def through(times: np.ndarray, knots: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Values at ``times`` of what moves from knot to knot, stopping at each, as a hand moves.

    Args:
        times: (T,).
        knots: (K,) increasing times.
        values: (K,) at the knots.
    """
    found = np.full(len(times), values[0], np.float64)
    for start, stop, low, high in zip(knots[:-1], knots[1:], values[:-1], values[1:], strict=True):
        found += (high - low) * minimum_jerk((times - start) / max(stop - start, 1e-6))
    return found
