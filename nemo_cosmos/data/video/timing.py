"""Frame rate from the times at which frames are shown."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

TOLERANCE = 0.25
"""Share of the interval by which one may be off and still be regular, beside one tick of the clock: containers round
times (30 fps in milliseconds alternates between 33 and 34)."""
MAX_IRREGULAR = 0.125
"""Share of intervals that may be longer, shorter or odd before a rate is variable rather than constant with gaps. The
length of a gap says nothing: a lost group of pictures leaves a long one."""
FEW = 6
"""Intervals from which on one odd one makes no variable rate."""


@dataclass(frozen=True)
class Timing:
    """Regularity of frame times.

    Attributes:
        rate: frames a second: of the regular grid, or the mean of a variable rate.
        variable: frame numbers are no measure of time.
        missing: numbers of missing frames on the regular grid, as positions in the list of times before which
            frames are missing; empty for a variable rate.
    """

    rate: float
    variable: bool
    missing: tuple[int, ...]


def measure(ticks: np.ndarray, tick: float, nominal: float) -> Timing:
    """Rate of frames shown at ``ticks``.

    Args:
        ticks: (n,) integers, rising.
        tick: seconds of a tick.
        nominal: what the container says, which may be wrong; the rate of a video of one frame.
    """
    gaps = np.diff(ticks).astype(np.float64)
    if not gaps.size or gaps.sum() <= 0:
        return Timing(nominal, False, ())
    median = float(np.percentile(gaps[gaps > 0], 50, method="lower"))
    # The mean of single intervals: half of film in a 60 Hz clock lasts two ticks and half three.
    interval = float(gaps[np.abs(gaps - median) <= median / 2 + 1].mean())
    steps = np.rint(gaps / interval)
    regular = (steps >= 1) & (np.abs(gaps - steps * interval) <= TOLERANCE * interval + 1)
    span = float(gaps.sum()) * tick
    odd = int((~regular | (steps > 1)).sum())
    if odd > max(MAX_IRREGULAR * len(gaps), 1 if len(gaps) >= FEW else 0):
        return Timing(len(gaps) / span, True, ())
    places: np.ndarray = np.flatnonzero(regular & (steps > 1)) + 1
    # The nominal rate, when the time stamps are that rate's, rounded (to milliseconds, if they have been in Matroska).
    exact = abs(float(steps.sum()) / nominal - span) <= max(tick, 0.0015)
    return Timing(nominal if exact else float(steps.sum()) / span, False, tuple(int(place) for place in places))
