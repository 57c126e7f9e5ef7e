"""Cut a span out of a video, frame by frame as a player shows it."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Generator, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from nemo_cosmos.data.video.decoding import decode
from nemo_cosmos.data.video.examine import Examined, examine
from nemo_cosmos.data.video.frames import DamagedError, Shown, deinterlaced
from nemo_cosmos.data.video.streams import open_video
from nemo_cosmos.data.video.write import timed_writer
from nemo_cosmos.errors import InputError

ROUNDING = 5.1e-4
"""Seconds by which a frame may be early and still begin in the span: half of Matroska's unit of time, or half of the
file's own where that is finer."""


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
    early = min(ROUNDING, found.tick / 2 + 1e-6)
    chosen = np.flatnonzero((times >= start - early) & (times < end - early))
    if not chosen.size:
        raise InputError(f"{source} has no frame from {start} to {end} s")
    if chosen[-1] >= found.whole:
        raise DamagedError(found.damage_at(source, found.whole))
    rate = Fraction(found.timing.rate).limit_denominator(1001)
    # A constant rate is written exactly, without the rounding of the source's time stamps.
    unit = Fraction(found.tick).limit_denominator(10_000_000) if found.timing.variable else 1 / rate
    frames = _frames_from(source, found, int(chosen[0]))
    with contextlib.closing(frames), timed_writer(target, rate, unit, quality) as write:
        number = -1
        for number, frame in zip(chosen.tolist(), frames, strict=False):
            image = Shown(frame, found.time(number), found.display).image()
            write(image, round(float(times[number] - times[chosen[0]]) / float(unit)))
        if number != chosen[-1]:
            raise DamagedError(found.damage_at(source, number + 1))
    return len(chosen)


def _frames_from(source: str | Path, found: Examined, number: int) -> Generator[Any, None, None]:
    """Frames from ``number`` on; a long file is not decoded from its beginning, unless seeking does not find them."""
    if found.stamped and number:
        with open_video(source) as container:
            stream = container.streams[found.stream]
            container.seek(int(found.ticks[number]), stream=stream)
            frames = (f for f in _decoding(container, stream, found) if (f.pts or 0) >= found.ticks[number])
            first = next(frames, None)
            if first is not None and first.pts == found.ticks[number]:
                yield from deinterlaced(itertools.chain([first], frames), stream)
                return
    with open_video(source) as container:
        stream = container.streams[found.stream]
        yield from itertools.islice(deinterlaced(_decoding(container, stream, found), stream), number, None)


def _decoding(container: Any, stream: Any, found: Examined) -> Iterator[Any]:
    return (frame for frame in decode(container, stream, found.has_keys) if frame is not None)
