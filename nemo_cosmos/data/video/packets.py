"""What the packets of a video stream promise, without decoding them."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

import av
import numpy as np

from nemo_cosmos.data.video.streams import demux
from nemo_cosmos.data.video.timing import Timing, measure

FRAME_PER_PACKET = {"h264", "hevc", "vp9", "av1", "libdav1d", "ffv1", "prores", "mjpeg", "dnxhd"}
"""Decoders that give a frame for every packet."""


@dataclass(frozen=True)
class Packets:
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


def read_packets(container: Any, stream: Any) -> Packets:
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
    return Packets(np.array(ticks, np.int64), flags[0], flags[1], flags[2], stamped, has_keys)


def _is_key_by_index(stream: Any, dts: int | None) -> bool:
    """Whether the index begins with a key frame at this time."""
    return any(entry.is_keyframe and entry.timestamp == dts for entry in itertools.islice(stream.index_entries, 1))


def is_exact(container: Any, stream: Any, packets: Packets, rate: float) -> bool:
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


def _is_complete(container: Any, stream: Any, packets: Packets, timing: Timing) -> bool:
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
