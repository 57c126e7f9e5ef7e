"""Packets to frames."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import av

from nemo_cosmos.data.video.losses import LossWatch
from nemo_cosmos.data.video.streams import demux

SMALL = 1 << 18
"""Pixels of pictures that take less time to decode than threads to start."""


def decode(
    container: Any, stream: Any, has_keys: bool, watch: LossWatch | None = None, *, threads: bool = True
) -> Iterator[Any | None]:
    """Frames from the first key frame on, in order, and None in place of what does not decode.

    Args:
        container: the file, newly opened or after seeking to a key frame.
        stream: its video stream.
        has_keys: packets say which of them can be decoded without others.
        watch: told of every packet; needs ``threads`` to be off.
        threads: decode large pictures on several threads. A process that forks workers afterwards should not:
            decoders that it has not freed yet would be freed in the workers, where their threads are missing, and
            wait for them for ever.
    """
    if threads and stream.codec_context.width * stream.codec_context.height > SMALL:
        stream.thread_type = "AUTO"
    else:
        stream.codec_context.thread_count = 1
    started, first, number = not has_keys, None, -1
    for packet in demux(container, stream):
        number += bool(packet.size)
        started = started or packet.is_keyframe
        if not started:
            continue
        if packet.is_corrupt:
            yield None
            continue
        frames = _decode(packet)
        if watch is not None and first is not None:
            watch.look(number)
        if first is None:
            first = packet.pts
        yield from (None if _is_broken(frame) else frame for frame in frames if not _refers_back(frame, first, stream))


def _decode(packet: Any) -> list[Any]:
    """Frames that a packet makes ready, None for those that fail."""
    try:
        return list(packet.decode())
    except (av.error.FFmpegError, ValueError):
        return [None]


def _is_broken(frame: Any | None) -> bool:
    return frame is None or bool(frame.is_corrupt)


def _refers_back(frame: Any | None, first: int | None, stream: Any) -> bool:
    """Whether a frame needs pictures from before the key frame that decoding began with; other decoders than that of
    H.264 leave such frames out themselves."""
    if frame is None or frame.pts is None or first is None:
        return False
    return stream.codec_context.name == "h264" and frame.pts < first
