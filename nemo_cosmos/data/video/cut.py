"""Cut a span out of a video, frame by frame as a player shows it."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from nemo_cosmos.data.video.examine import Examined, decode, examine
from nemo_cosmos.data.video.frames import DamagedError, Shown, deinterlaced
from nemo_cosmos.data.video.streams import open_video
from nemo_cosmos.data.video.write import timed_writer
from nemo_cosmos.errors import InputError

ROUNDING = 1e-6
"""Seconds by which a frame may be early and still begin in the span: binary fractions of time stamps."""


def cut(source: str | Path, target: str | Path, start: float, end: float, quality: int = 18) -> int:
    """Write the frames of ``source`` shown from ``start`` to before ``end`` (seconds) as H.264, without sound.

    Cuts at frames, not at key frames; keeps the distances between frames. What is written is what is shown: upright,
    with square pixels, deinterlaced, in SDR and tagged with its matrix and range. Gives the number of frames.

    Raises:
        InputError: undecodable source, damage in the span or before it, or no frame in the span.
    """
    if not 0 <= start < end:
        raise InputError(f"{source}: span {start} to {end} s, expected 0 <= start < end")
    found = examine(source)
    times = found.ticks * found.tick - found.origin
    chosen = np.flatnonzero((times >= start - ROUNDING) & (times < end - ROUNDING))
    if not chosen.size:
        raise InputError(f"{source} has no frame from {start} to {end} s")
    if chosen[-1] >= found.whole:
        raise DamagedError(found.damage_at(source, found.whole))
    rate = Fraction(found.timing.rate).limit_denominator(1001)
    time_base = Fraction(found.tick).limit_denominator(10_000_000)
    frames = deinterlaced(_frames_from(source, found, int(chosen[0])))
    with timed_writer(target, rate, time_base, quality) as write:
        number = -1
        for number, frame in zip(chosen.tolist(), frames, strict=False):
            image = Shown(frame, found.time(number), found.display).image()
            write(image, int(found.ticks[number] - found.ticks[chosen[0]]))
        if number != chosen[-1]:
            raise DamagedError(found.damage_at(source, number + 1))
    return len(chosen)


def _frames_from(source: str | Path, found: Examined, number: int) -> Iterator[Any]:
    """Frames from ``number`` on; a long file is not decoded from its beginning, unless seeking does not find them."""
    if found.stamped and number:
        with open_video(source) as container:
            container.seek(int(found.ticks[number]), stream=container.streams[found.stream])
            frames = _after(_whole_frames(container, found), int(found.ticks[number]))
            first = next(frames, None)
            if first is not None and first.pts == found.ticks[number]:
                yield first
                yield from frames
                return
    with open_video(source) as container:
        for k, frame in enumerate(_whole_frames(container, found)):
            if k >= number:
                yield frame


def _whole_frames(container: Any, found: Examined) -> Iterator[Any]:
    return (frame for frame in decode(container, found) if frame is not None)


def _after(frames: Iterator[Any], pts: int) -> Iterator[Any]:
    return (frame for frame in frames if frame.pts is not None and frame.pts >= pts)
