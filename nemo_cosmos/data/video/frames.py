"""Frames as a player shows them, at their own times or at a constant rate."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nemo_cosmos.data.resize import Fit, resize
from nemo_cosmos.data.video.colour import to_rgb
from nemo_cosmos.data.video.decoding import decode
from nemo_cosmos.data.video.display import Display
from nemo_cosmos.data.video.examine import Examined, examine
from nemo_cosmos.data.video.interlace import LOOK_AHEAD, CombDetector, Deinterlacer
from nemo_cosmos.data.video.streams import open_video
from nemo_cosmos.data.video.timing import TOLERANCE
from nemo_cosmos.errors import InputError


class DamagedError(InputError):
    """The frames from here on are missing or broken."""


@dataclass(frozen=True)
class Shown:
    """A frame that a player shows.

    Attributes:
        frame: as decoded, deinterlaced.
        time: seconds from the first shown frame.
        display: its geometry.
    """

    frame: Any
    time: float
    display: Display

    def image(self, size: tuple[int, int] | None = None, fit: Fit = "crop") -> Tensor:
        """(3, H, W) uint8 RGB: upright, square pixels, SDR; scaled once, to ``size`` (height, width) or as shown."""
        upright = torch.from_numpy(np.ascontiguousarray(self.display.upright(to_rgb(self.frame)))).permute(2, 0, 1)
        if size is None:
            return resize(upright, self.display.size, "stretch")
        return resize(upright, size, fit, shown=self.display.size)


def shown(path: str | Path, *, keep_damaged: bool = False) -> Iterator[Shown]:
    """Every frame that a player shows, in order.

    Args:
        path: video file.
        keep_damaged: go on after lost packets, and take combed frames that are not flagged as interlaced.

    Raises:
        DamagedError: frames are lost or broken from here on.
        InputError: no video; not convertible; the frame size changes; or frames look woven from two fields.
    """
    found = examine(path)
    count = len(found.ticks) if keep_damaged else found.whole
    with open_video(path) as container:
        stream = container.streams[found.stream]
        frames = _checked(decode(container, stream, found.has_keys), found, path, keep_damaged)
        if not keep_damaged:
            frames = _uncombed(frames, found.whole, path)
        for number, frame in zip(range(count), deinterlaced(frames, stream), strict=False):
            yield Shown(frame, found.time(number), found.display)
    if count < len(found.ticks):
        raise DamagedError(found.damage_at(path, count))


def resampled(path: str | Path, fps: float | None, *, keep_damaged: bool = False) -> Iterator[Shown]:
    """Frames as stored, or at a constant rate: instant k shows the last frame whose time is at most k / fps.

    A frame may be late by the rounding of its time stamp and still count as on time. Errors are those of ``shown``.
    """
    if fps is None:
        yield from shown(path, keep_damaged=keep_damaged)
        return
    if not 0 < fps < math.inf:
        raise InputError(f"{path}: fps={fps}, expected a positive rate")
    found = examine(path)
    total = instants(found, fps, keep_damaged)
    tolerance = TOLERANCE / found.timing.rate
    previous: Shown | None = None
    emitted, damage = 0, None
    frames = shown(path, keep_damaged=keep_damaged)
    while damage is None:
        try:
            current = next(frames, None)
        except DamagedError as error:
            current, damage = None, error
        until = math.inf if current is None else current.time - tolerance
        while previous is not None and emitted < total and emitted / fps < until:
            yield previous
            emitted += 1
        if current is None:
            break
        previous = current
    if damage is not None:
        raise damage


def instants(found: Examined, fps: float, keep_damaged: bool = False) -> int:
    """Frames at the constant rate ``fps``, up to the first damage."""
    last = (len(found.ticks) if keep_damaged else found.whole) - 1
    rate = found.timing.rate
    return max(1, math.ceil((found.time(last) + (1 - TOLERANCE) / rate) * fps))


def _checked(frames: Iterator[Any | None], found: Examined, path: str | Path, keep_damaged: bool) -> Iterator[Any]:
    """Pass frames on; DamagedError where they are not those that were found, InputError where their size changes."""
    size: tuple[int, int] | None = None
    number, latest = -1, None
    for frame in frames:
        if frame is None:
            # The pictures that follow may refer to what is lost; after decoding a file to its end that is known.
            if not (keep_damaged or found.decoded) and number + 1 < found.whole:
                raise DamagedError(found.damage_at(path, number + 1))
            continue
        if found.stamped and frame.pts == latest:
            continue
        number, latest = number + 1, frame.pts
        expected = found.stamped and not keep_damaged and number < found.whole
        if expected and frame.pts != found.ticks[number]:
            raise DamagedError(found.damage_at(path, number))
        if size is not None and (frame.height, frame.width) != size:
            raise InputError(f"{path}: the frame size changes within the video")
        size = frame.height, frame.width
        yield frame
    if number + 1 < found.whole and not keep_damaged:
        raise DamagedError(found.damage_at(path, number + 1))


def _uncombed(frames: Iterator[Any], whole: int, path: str | Path) -> Iterator[Any]:
    """Pass frames on; InputError where one of the first ``whole`` makes it certain that they are combed.

    That takes about ten frames, which are looked at before the first is passed on, so that windows shorter than that
    are not combed either. Errors of ``frames`` come after the frames before them.
    """
    combs, held = CombDetector(), deque[Any]()
    error: InputError | None = None
    number, ended = 0, False
    while True:
        while not ended and len(held) < LOOK_AHEAD:
            try:
                frame = next(frames, None)
            except InputError as raised:
                frame, error = None, raised
            if frame is None:
                ended = True
                break
            held.append(frame)
            number += 1
            if number <= whole and combs.is_combed(frame):
                raise InputError(
                    f"{path} is interlaced without saying so (its frames are woven from two instants): deinterlace "
                    "it, or prepare it as it is with --keep-damaged"
                )
        if not held:
            break
        yield held.popleft()
    if error is not None:
        raise error


def deinterlaced(frames: Iterator[Any], stream: Any) -> Iterator[Any]:
    """Frames one for one, those flagged as interlaced made progressive."""
    filtering = Deinterlacer(int(stream.codec_context.field_order))
    for frame in frames:
        yield from filtering.push(frame)
    yield from filtering.flush()
