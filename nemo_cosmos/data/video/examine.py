"""Which frames of a file a player shows, and when: found by reading its packets, and by decoding where those leave
room for doubt.

Nobody sees frames that an edit list hides, that come before the first key frame, or whose data are lost. Decoders
conceal lost packets without a word, so that the pictures that follow, up to the next key frame, are wrong; what gives
the loss away is the gap in the frame times.
"""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np

from nemo_cosmos.data.video.colour import check_colours
from nemo_cosmos.data.video.decoding import decode
from nemo_cosmos.data.video.display import Display, display_of
from nemo_cosmos.data.video.losses import LossWatch
from nemo_cosmos.data.video.packets import FRAME_PER_PACKET, Packets, is_exact, read_packets
from nemo_cosmos.data.video.streams import open_video, video_stream
from nemo_cosmos.data.video.timing import MAX_IRREGULAR, Timing, measure
from nemo_cosmos.errors import InputError

_NOTHING = object()


@dataclass(frozen=True)
class Examined:
    """What a player shows of a file.

    Attributes:
        stream: index of the video stream.
        has_keys: packets say which of them can be decoded without others.
        ticks: (n,) int64, times of the frames that decode, in units of ``tick``; rising.
        tick: seconds.
        stamped: the file has time stamps; without them ``ticks`` counts frames.
        decoded: the whole file has been decoded, not only its packets read.
        origin: seconds at which a player's clock stands at 0.
        whole: frames before the first loss or damage; ``n`` when there is none.
        timing: rate and regularity.
        display: geometry.
    """

    stream: int
    has_keys: bool
    ticks: np.ndarray
    tick: float
    stamped: bool
    decoded: bool
    origin: float
    whole: int
    timing: Timing
    display: Display

    def time(self, number: int) -> float:
        """Seconds from the first shown frame."""
        return float(self.ticks[number] - self.ticks[0]) * self.tick

    def damage(self, path: str | Path) -> str:
        """What is wrong with the file; empty when nothing is."""
        return self.damage_at(path, self.whole) if self.whole < len(self.ticks) else ""

    def damage_at(self, path: str | Path, number: int) -> str:
        """The words for damage from frame ``number`` on."""
        seconds = self.time(number - 1) + 1 / self.timing.rate if number else 0.0
        return (
            f"{path} is damaged at {seconds:.2f} s: frames are missing or broken from number {number} on; repair it "
            "or cut it before that (prepare takes it as it is with --keep-damaged)"
        )


def examine(path: str | Path) -> Examined:
    """Examine a file; one that stays as it is is read once in a process.

    Raises:
        InputError: it is missing, empty, no video, or shows no frame; or its colours or geometry cannot be converted.
    """
    try:
        stat = Path(path).stat()
    except (OSError, ValueError):
        return _examine.__wrapped__(str(path), "", 0, 0)  # Opening it says what is wrong.
    return _examine(str(path), os.getcwd(), stat.st_size, stat.st_mtime_ns)


@functools.lru_cache(maxsize=1024)  # an hour of 30 fps takes 0.9 MB
def _examine(path: str, folder: str, size: int, modified: int) -> Examined:
    with open_video(path) as container:
        stream = video_stream(container, path)
        codec = stream.codec_context.name
        packets = read_packets(container, stream)
        index, tick, rate = stream.index, float(stream.time_base), float(stream.average_rate or 0) or 25.0
        if not packets.ticks.size:
            raise InputError(f"{path} holds no video frames")
        exact = is_exact(container, stream, packets, rate)
        origin = None if container.start_time is None else container.start_time / av.time_base
    watch = LossWatch() if codec == "h264" and not exact else None
    with open_video(path) as container, watch or contextlib.nullcontext():
        stream = container.streams[index]
        frames = decode(container, stream, packets.has_keys, watch, threads=False)
        broken, first = 0, next(frames, None)
        while first is None:
            broken, first = 1, next(frames, _NOTHING)
        if first is _NOTHING:
            raise InputError(f"{path} holds no decodable video frame")
        check_colours(first, path)
        display = display_of(first, stream, path)
        exact = exact and not first.interlaced_frame  # Two packets may make a frame.
        times, whole = (packets.promised.tolist(), None) if exact else _times(first, frames)
    if broken:
        whole = 0
    stamped = packets.stamped and None not in times and _in_order(times)
    if not stamped:
        times, tick, origin = list(range(len(times))), 1 / rate, 0.0
    ticks = np.unique(np.array(times, np.int64))
    # Packets that did not decode still say when they would have been shown.
    sure = stamped and codec in FRAME_PER_PACKET and not first.interlaced_frame
    expected = np.union1d(ticks, packets.promised[packets.promised >= packets.begin]) if sure else ticks
    timing = measure(expected, tick, rate)
    places = [len(ticks)] if whole is None else [whole]
    if stamped:
        places.append(_before_gap(ticks, expected, timing, packets, codec))
    if watch is not None and watch.packets:
        places.append(_before_loss(ticks, packets, watch.packets[0], stamped))
    origin = float(ticks[0]) * tick if origin is None else origin
    return Examined(index, packets.has_keys, ticks, tick, stamped, not exact, origin, min(places), timing, display)


def _times(first: Any, frames: Iterator[Any | None]) -> tuple[list[int | None], int | None]:
    """Times of all frames, and how many come before the first that does not decode."""
    times, whole = [first.pts], None
    for frame in frames:
        if frame is not None:
            times.append(frame.pts)
        elif whole is None:
            whole = len(times)
    return times, whole


def _in_order(times: list[Any]) -> bool:
    """Whether frames come at their times, but for a few around damage."""
    return len(times) < 2 or float((np.diff(times) < 0).mean()) <= MAX_IRREGULAR


def _before_gap(ticks: np.ndarray, expected: np.ndarray, timing: Timing, packets: Packets, codec: str) -> int:
    """Frames before the first one that is missing among ``ticks``, and that certainly do not refer to it.

    Frames shown before it may have been decoded after it and refer to it, unless the file just ends there.
    """
    gaps = [(float(expected[place - 1]) + float(expected[place])) / 2 for place in timing.missing[:1]]
    undecoded = np.setdiff1d(expected, ticks)[:1].astype(float).tolist()
    lost = min([*gaps, *undecoded], default=None)
    if lost is None:
        return len(ticks)
    says_so = codec == "hevc" or (codec == "h264" and lost not in undecoded)
    if not says_so and lost <= ticks[-1] - packets.reordering:
        lost -= packets.reordering
    return int(np.searchsorted(ticks, lost))


def _before_loss(ticks: np.ndarray, packets: Packets, number: int, stamped: bool) -> int:
    """Frames before all that are decoded from packet ``number`` on."""
    if not stamped:
        return max(0, number - packets.reordering)
    times = packets.ticks[number:][~packets.hidden[number:]]
    return int(np.searchsorted(ticks, times.min())) if times.size else len(ticks)
