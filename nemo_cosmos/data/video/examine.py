"""Which frames of a file a player shows, and when: found by reading its packets, and by decoding where those leave
room for doubt.

Nobody sees frames that an edit list hides, that come before the first key frame, or whose data are lost. Decoders
conceal lost packets without a word, so that the pictures that follow, up to the next key frame, are wrong; what gives
the loss away is the gap in the frame times.
"""

from __future__ import annotations

import functools
import itertools
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np

from nemo_cosmos.data.video.colour import check_colours
from nemo_cosmos.data.video.display import Display, display_of
from nemo_cosmos.data.video.streams import demux, open_video, video_stream
from nemo_cosmos.data.video.timing import Timing, measure
from nemo_cosmos.errors import InputError

FRAME_PER_PACKET = {"h264", "hevc", "vp9", "av1", "libdav1d", "ffv1", "prores", "mjpeg", "dnxhd"}
"""Decoders that give a frame for every packet."""


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


@dataclass(frozen=True)
class _Packets:
    """Packets in decoding order: (n,) times; whether each can be decoded alone, is hidden by an edit list, damaged."""

    ticks: np.ndarray
    key: np.ndarray
    hidden: np.ndarray
    broken: np.ndarray
    stamped: bool
    has_keys: bool

    @property
    def promised(self) -> np.ndarray:
        """(m,) times of the frames that are to be shown, from the first key frame on, rising."""
        first = int(self.key.argmax())
        return np.unique(self.ticks[first:][~self.hidden[first:]])

    @property
    def begin(self) -> int:
        """Time of the first key frame; what is shown before it may refer to what is not there."""
        return int(self.ticks[self.key.argmax()])

    @property
    def reordering(self) -> int:
        """Ticks by which a packet may come after one that is shown later."""
        return int((np.maximum.accumulate(self.ticks) - self.ticks).max(initial=0))


def examine(path: str | Path) -> Examined:
    """Examine a file; one that stays as it is is read once in a process.

    Raises:
        InputError: it is missing, empty, no video, or shows no frame; or its colours or geometry cannot be converted.
    """
    try:
        stat = Path(path).stat()
    except OSError:
        return _examine.__wrapped__(str(path), "", 0, 0)  # Opening it says what is wrong.
    return _examine(str(path), os.getcwd(), stat.st_size, stat.st_mtime_ns)


def decode(container: Any, found: Examined) -> Iterator[Any | None]:
    """Frames that a player shows, in order, and None in place of what does not decode.

    Args:
        container: the file, newly opened or after seeking to a key frame.
        found: what ``examine`` says.
    """
    return _decode(container, container.streams[found.stream], found.has_keys)


def _decode(container: Any, stream: Any, has_keys: bool) -> Iterator[Any | None]:
    stream.thread_type = "AUTO"
    started, first = not has_keys, None
    for packet in demux(container, stream):
        started = started or packet.is_keyframe
        if not started:
            continue
        if packet.is_corrupt:
            yield None
            continue
        if first is None:
            first = packet.pts
        try:
            frames = packet.decode()
        except (av.error.FFmpegError, ValueError):
            yield None
            continue
        for frame in frames:
            if not _refers_back(frame, first, stream):
                yield None if frame.is_corrupt else frame


def _refers_back(frame: Any, first: int | None, stream: Any) -> bool:
    """Whether a frame needs pictures from before the key frame that decoding began with; other decoders than that of
    H.264 leave such frames out themselves."""
    return stream.codec_context.name == "h264" and first is not None and frame.pts is not None and frame.pts < first


@functools.lru_cache(maxsize=65536)
def _examine(path: str, folder: str, size: int, modified: int) -> Examined:
    with open_video(path) as container:
        stream = video_stream(container, path)
        packets = _read_packets(container, stream)
        index, tick, rate = stream.index, float(stream.time_base), float(stream.average_rate or 0) or 25.0
        exact = _is_exact(container, stream, packets, rate)
        checked = packets.stamped and stream.codec_context.name in FRAME_PER_PACKET
        origin = None if container.start_time is None else container.start_time / av.time_base
    ticks, has_keys, stamped = packets.promised, packets.has_keys, packets.stamped
    with open_video(path) as container:
        stream = container.streams[index]
        frames = (frame for frame in _decode(container, stream, has_keys) if frame is not None)
        first = next(frames, None)
        if first is None:
            raise InputError(f"{path} holds no decodable video frame")
        check_colours(first, path)
        display = display_of(first, stream, path)
        if not exact:
            times = [first.pts, *(frame.pts for frame in frames)]
            stamped = packets.stamped and None not in times and times == sorted(times)
            ticks = np.unique(np.array(times, np.int64)) if stamped else np.arange(len(times))
    if not stamped:
        tick, origin = 1 / rate, 0.0
    # Packets that did not decode still say when they would have been shown.
    expected = np.union1d(ticks, packets.promised[packets.promised >= packets.begin]) if checked and stamped else ticks
    timing = measure(expected, tick, rate)
    lost = _lost(ticks, expected, timing)
    whole = len(ticks) if lost is None else _whole(ticks, lost, packets.reordering if stamped else 0, timing, tick)
    origin = float(ticks[0]) * tick if origin is None else origin
    return Examined(index, has_keys, ticks, tick, stamped, not exact, origin, whole, timing, display)


def _read_packets(container: Any, stream: Any) -> _Packets:
    rows = [
        (p.pts if p.pts is not None else p.dts, p.is_keyframe, p.is_discard, p.is_corrupt, p.dts)
        for p in demux(container, stream)
        if p.size
    ]
    stamped = all(row[0] is not None for row in rows)
    ticks = [row[0] if stamped else number for number, row in enumerate(rows)]
    flags = np.array([row[1:4] for row in rows], bool).reshape(-1, 3).T
    has_keys = bool(flags[0].any())
    # A key frame by the container's index that does not look like one is damaged, not the middle of a film.
    if rows and not rows[0][1] and _is_key_by_index(stream, rows[0][4]):
        flags[0][0], has_keys = True, False
    return _Packets(np.array(ticks, np.int64), flags[0], flags[1], flags[2], stamped, has_keys)


def _is_key_by_index(stream: Any, dts: int | None) -> bool:
    """Whether the index begins with a key frame at this time."""
    return any(entry.is_keyframe and entry.timestamp == dts for entry in itertools.islice(stream.index_entries, 1))


def _is_exact(container: Any, stream: Any, packets: _Packets, rate: float) -> bool:
    """Whether the packets leave no doubt about what is shown."""
    ticks = packets.promised
    if not (packets.stamped and packets.has_keys and packets.key[0] and ticks.size) or packets.broken.any():
        return False
    codec = stream.codec_context
    if codec.name not in FRAME_PER_PACKET or packets.ticks.min() < packets.ticks[0]:
        return False
    if container.format.name == "avi" and codec.has_b_frames:
        return False  # AVI knows the order of decoding alone.
    timing = measure(ticks, float(stream.time_base), rate)
    return not timing.variable and not timing.missing and _is_complete(container, stream, packets, timing)


def _is_complete(container: Any, stream: Any, packets: _Packets, timing: Timing) -> bool:
    """Whether there is as much video as the header says; False where it says nothing."""
    if stream.frames:
        return bool(stream.frames == len(packets.ticks))
    stated = stream.metadata.get("DURATION")
    if stated is not None:
        hours, minutes, seconds = (float(part) for part in stated.strip("\0 ").split(":"))
        length = hours * 3600 + minutes * 60 + seconds
    elif container.duration is not None and "matroska" in container.format.name:
        length = container.duration / av.time_base
    else:
        return False
    return float(packets.ticks.max() * stream.time_base) + 2 / timing.rate > length


def _lost(ticks: np.ndarray, expected: np.ndarray, timing: Timing) -> float | None:
    """Time of the first frame that is missing among ``ticks``, in ticks; None when there is none."""
    gaps = [(float(expected[place - 1]) + float(expected[place])) / 2 for place in timing.missing[:1]]
    return min([*gaps, *np.setdiff1d(expected, ticks)[:1].astype(float).tolist()], default=None)


def _whole(ticks: np.ndarray, lost: float, reordering: int, timing: Timing, tick: float) -> int:
    """Frames that certainly do not refer to a lost one.

    Frames shown before it may have been decoded after it and refer to it, unless the file just ends there.
    """
    if lost > ticks[-1] - reordering:
        return int(np.searchsorted(ticks, lost))
    return int(np.searchsorted(ticks, lost - reordering - 0.5 / timing.rate / tick))
