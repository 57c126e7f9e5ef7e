"""Open a video file and choose the stream that a player shows."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
from av.stream import Disposition

from nemo_cosmos.errors import InputError, require_file

STILL_CODECS = {"mjpeg", "png", "bmp", "gif", "webp", "tiff", "jpeg2000"}
"""Codecs of cover pictures; a stream of moving pictures goes first where nothing else tells the two apart."""
NO_FILM = Disposition.attached_pic | Disposition.timed_thumbnails | Disposition.still_image


def open_video(path: str | Path) -> Any:
    """The container of a file, to be used in a ``with`` statement.

    Raises:
        InputError: the file is missing, empty, or in no format that FFmpeg knows.
    """
    path = Path(path)
    require_file(path)
    if path.stat().st_size == 0:
        raise InputError(f"{path} is empty (zero bytes)")
    try:
        # "file:" keeps a colon or a leading dash in a name from being read as a protocol or an option. Metadata in
        # another encoding is none of our business.
        return av.open(f"file:{path}", metadata_errors="replace")
    except (av.error.FFmpegError, ValueError) as error:
        raise InputError(f"{path} cannot be opened as a video: {reason(error)}") from error


def video_stream(container: Any, path: str | Path) -> Any:
    """The video stream that a player shows: no cover picture; marked default; moving; largest; first.

    Raises:
        InputError: there is none, or none with a decoder.
    """
    films = [stream for stream in container.streams.video if not stream.disposition & NO_FILM]
    if not films:
        kind = "a cover picture but no video stream" if container.streams.video else "no video stream"
        raise InputError(f"{path} has {kind}")
    playable = [stream for stream in films if stream.codec_context is not None]
    if not playable:
        raise InputError(f"{path}: no decoder for its video stream")
    return max(playable, key=_preference)


def demux(container: Any, stream: Any) -> Iterator[Any]:
    """Packets of a stream, the flushing one included; a read error ends the file as it would for a player."""
    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets)
        except (StopIteration, av.error.FFmpegError, OSError, ValueError):
            return
        # An empty packet would flush the decoder, which is meant at the end alone.
        if packet.size or packet.dts is None:
            yield packet


def reason(error: Exception) -> str:
    """What an FFmpeg error says, in a few words."""
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


def _preference(stream: Any) -> tuple[bool, bool, int, int]:
    codec = stream.codec_context
    moving = codec.name not in STILL_CODECS
    return bool(stream.disposition & Disposition.default), moving, codec.width * codec.height, -stream.index
