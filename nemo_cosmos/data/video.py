"""Read and write video files with PyAV.

Frames are uint8 RGB tensors (3, T, H, W). Frames come upright: a rotation recorded by a phone is applied.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import tempfile
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch
from torch import Tensor

from nemo_cosmos.data.resize import FITS, Fit, padding_mask, resize
from nemo_cosmos.errors import InputError

__all__ = [
    "CONTAINERS",
    "FITS",
    "Fit",
    "VideoInfo",
    "cut",
    "iter_windows",
    "padding_mask",
    "probe",
    "read_frames",
    "resize",
    "stated_frames",
    "video_writer",
    "write_mp4",
]

RATE_TOLERANCE = 0.25
"""Frame intervals may differ from the mean by this share before a file counts as variable-rate; container time bases
round intervals (30 fps in milliseconds alternates between 33 and 34)."""

CONTAINERS = {".mp4": "mp4", ".m4v": "mp4", ".mov": "mov", ".mkv": "matroska", ".avi": "avi"}
"""Suffixes of files that H.264 can be written to, with FFmpeg's names of the formats."""

_BT601, _LIMITED_RANGE = 6, 1  # H.264 code points of the conversion that swscale applies


@dataclass(frozen=True)
class VideoInfo:
    """What a video file holds.

    Attributes:
        frames: number of frames.
        fps: mean frame rate.
        height: rows as displayed, that is after the recorded rotation.
        width: columns as displayed.
        duration: seconds from the first frame to the end of the last.
        variable_rate: frame intervals differ, so frame numbers are no measure of time.
    """

    frames: int
    fps: float
    height: int
    width: int
    duration: float
    variable_rate: bool


def probe(path: str | Path) -> VideoInfo:
    """Read sizes, frame count and rate; counts packets, decodes one frame.

    Raises:
        InputError: the file is missing, empty, or has no decodable video.
    """
    with _open(path) as container:
        stream = _video_stream(container, path)
        times: list[Fraction] = []
        rotation, height, width = 0, stream.codec_context.height, stream.codec_context.width
        first = True
        for packet in _guard(container.demux(stream), path):
            if packet.size == 0:
                continue
            if first:
                rotation = _first_rotation(path)
                first = False
            if packet.pts is not None:
                times.append(packet.pts * packet.time_base)
            else:
                times.append(Fraction(len(times)) / (stream.average_rate or 25))
        if not times:
            raise InputError(f"{path} holds no video frames")
    times.sort()
    rate = float(stream.average_rate or 0)
    span = float(times[-1] - times[0])
    if len(times) > 1 and span > 0:
        rate = (len(times) - 1) / span
    if rate <= 0:
        rate = 25.0
    gaps = [float(b - a) * rate for a, b in itertools.pairwise(times)]
    variable = any(abs(gap - 1.0) > RATE_TOLERANCE for gap in gaps)
    if rotation % 180:
        height, width = width, height
    return VideoInfo(len(times), rate, height, width, span + 1.0 / rate, variable)


def stated_frames(path: str | Path) -> int | None:
    """Number of frames that the file's header states, which may be wrong; None where it says nothing, as in WebM.

    Raises:
        InputError: the file is missing, empty, or has no video.
    """
    with _open(path) as container:
        return _video_stream(container, path).frames or None


def read_frames(
    path: str | Path,
    start: int = 0,
    count: int | None = None,
    size: tuple[int, int] | None = None,
    *,
    fit: Fit = "crop",
    step: int = 1,
    fps: float | None = None,
) -> Tensor:
    """Decode frames ``start, start + step, ...`` as uint8 RGB.

    Args:
        path: video file.
        start: first frame, counted at the rate ``fps`` if given.
        count: frames to return; None: all from ``start`` on.
        size: (height, width) to scale to; None keeps the source size.
        fit: how the source fills ``size``: ``crop`` scales to cover and cuts the middle out, ``pad`` scales to fit
            inside and adds black bars, ``stretch`` scales both axes independently.
        step: distance between returned frames.
        fps: resample by time stamps to this constant rate (each instant shows the last frame before it); None: frames
            as stored.

    Returns:
        (3, T, H, W) uint8.

    Raises:
        InputError: undecodable or damaged file, or fewer than the asked frames.
    """
    if start < 0 or step < 1 or (count is not None and count < 1):
        raise InputError(
            f"{path}: start={start}, count={count}, step={step}: expected start >= 0, count and step >= 1"
        )
    picked: list[Tensor] = []
    for number, frame in enumerate(_resampled(path, fps)):
        if number >= start and (number - start) % step == 0:
            image = torch.from_numpy(_upright(frame)).permute(2, 0, 1)
            picked.append(image if size is None else resize(image, size, fit))
            if len(picked) == count:
                break
    else:
        if count is not None or not picked:
            needed = "any" if count is None else str(start + (count - 1) * step + 1)
            raise InputError(
                f"{path} is too short: {len(picked)} of the frames from {start} on, {needed} frames needed"
            )
    if any(image.shape != picked[0].shape for image in picked):
        raise InputError(f"{path}: the frame size changes within the video")
    return torch.stack(picked, dim=1)


def iter_windows(
    path: str | Path,
    count: int,
    *,
    stride: int,
    size: tuple[int, int] | None = None,
    fit: Fit = "crop",
    step: int = 1,
    fps: float | None = None,
    rest: bool = False,
) -> Iterator[tuple[int, Tensor]]:
    """Every window of ``count`` frames that begins at frame 0, ``stride``, 2 ``stride``, ...; one pass, one window
    held, frames decoded when their window is asked for.

    With ``rest`` the frames after the last whole window come as a shorter one, so that ``stride = count`` gives every
    frame once. Other arguments are those of ``read_frames``. Yields (first frame, (3, count, H, W) uint8).

    Raises:
        InputError: undecodable file, a change of the frame size, or not even one window (``rest``: frame).
    """
    if count < 1 or stride < 1 or step < 1:
        raise InputError(f"{path}: count={count}, stride={stride}, step={step}: expected at least 1 of each")
    span = (count - 1) * step + 1
    held: deque[Tensor] = deque(maxlen=span)
    start = number = 0
    for number, frame in enumerate(_resampled(path, fps), start=1):
        image = torch.from_numpy(_upright(frame)).permute(2, 0, 1)
        image = image if size is None else resize(image, size, fit)
        if held and image.shape != held[-1].shape:
            raise InputError(f"{path}: the frame size changes within the video")
        held.append(image)
        if number == start + span:
            yield start, torch.stack(list(held)[::step], dim=1)
            start += stride
    if rest and start < number:
        yield start, torch.stack(list(held)[start - number :: step], dim=1)
    elif start == 0:
        raise InputError(f"{path} is too short: {number} frames, {1 if rest else span} frames needed")


def write_mp4(path: str | Path, frames: Tensor | np.ndarray, fps: float, quality: int = 18) -> None:
    """Write all frames of a video at once; see ``video_writer``.

    Raises:
        InputError: wrong shape or dtype, no frames, or a rate that is not positive.
    """
    with video_writer(path, fps, quality) as write:
        write(frames)


@contextlib.contextmanager
def video_writer(path: str | Path, fps: float, quality: int = 18) -> Iterator[Callable[[Tensor | np.ndarray], None]]:
    """Write H.264 in yuv420p piece by piece; MP4 has the index in front, which any player and browser opens.

    Gives a function that appends uint8 RGB frames, (3, T, H, W) or (T, H, W, 3). An odd height or width gets its last
    row or column doubled, because 4:2:0 chroma needs even sizes.

    Args:
        path: file to write, in the format of its suffix (``CONTAINERS``; otherwise MP4); it appears under its name
            when complete.
        fps: frame rate, > 0.
        quality: constant rate factor of x264: 0 is lossless, 18 looks lossless, 51 is worst.

    Raises:
        InputError: wrong shape or dtype, another frame size than before, no frames, or a rate that is not positive.
    """
    if not fps > 0 or not 0 <= quality <= 51:
        raise InputError(f"{path}: fps={fps}, quality={quality}: expected fps > 0 and quality in 0..51")
    path = Path(path)
    kind = CONTAINERS.get(path.suffix.lower(), "mp4")
    movflags = {"movflags": "+faststart"} if kind in ("mp4", "mov") else {}
    stream: Any = None
    with _finished_file(path) as temporary, av.open(str(temporary), "w", format=kind, options=movflags) as container:

        def write(frames: Tensor | np.ndarray) -> None:
            nonlocal stream
            images = _as_images(frames)
            if stream is None:
                # One thread: x264's output depends on their number, and rendered clips must be reproducible.
                options = {"crf": str(quality), "threads": "1"}
                stream = container.add_stream("libx264", rate=Fraction(fps).limit_denominator(1001), options=options)
                stream.width, stream.height, stream.pix_fmt = images.shape[2], images.shape[1], "yuv420p"
                # Players guess the matrix of an untagged file from its height, and would show 704 rows in other
                # colours.
                stream.codec_context.colorspace, stream.codec_context.color_range = _BT601, _LIMITED_RANGE
            if images.shape[1:3] != (stream.height, stream.width):
                raise InputError(
                    f"{path}: frames of {images.shape[1]}x{images.shape[2]} after {stream.height}x{stream.width}"
                )
            for image in images:
                frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
                container.mux(stream.encode(_convert(frame, "yuv420p")))

        yield write
        if stream is None:
            raise InputError(f"{path}: no frames to write")
        container.mux(stream.encode())


def cut(source: str | Path, target: str | Path, start: float, end: float, quality: int = 18) -> int:
    """Write the frames of ``source`` shown from ``start`` to before ``end`` (seconds) as H.264, without sound.

    Cuts at frames, not at key frames; keeps the distances between frames. Gives the number of frames.

    Raises:
        InputError: undecodable source, or no frame in the span.
    """
    if not 0 <= start < end:
        raise InputError(f"{source}: span {start} to {end} s, expected 0 <= start < end")
    target = Path(target)
    with _open(source) as container, _finished_file(target) as temporary:
        stream = _video_stream(container, source)
        # Seeking lands on the key frame before the start, so that long files are not decoded from their beginning.
        container.seek(int(start / stream.time_base) + (stream.start_time or 0), stream=stream)
        begin = (stream.start_time or 0) * stream.time_base
        count, first = 0, 0
        with av.open(str(temporary), "w", format="mp4", options={"movflags": "+faststart"}) as out:
            copy = out.add_stream("libx264", rate=stream.average_rate, options={"crf": str(quality)})
            copy.pix_fmt, copy.time_base = "yuv420p", stream.time_base
            copy.codec_context.time_base = stream.time_base
            for frame in _guard(container.decode(stream), source):
                time = float(frame.pts * stream.time_base - begin)
                if time >= end:
                    break
                if time < start:
                    continue
                if count == 0:
                    first = frame.pts
                    copy.width, copy.height = frame.width // 2 * 2, frame.height // 2 * 2
                image = frame.reformat(width=copy.width, height=copy.height, format="yuv420p")
                image.pts, image.time_base, image.pict_type = frame.pts - first, stream.time_base, 0
                out.mux(copy.encode(image))
                count += 1
            if count:
                out.mux(copy.encode())
        if not count:
            raise InputError(f"{source} has no frame from {start} to {end} s")
    return count


@contextlib.contextmanager
def _finished_file(path: Path) -> Iterator[Path]:
    """A temporary name beside ``path``; renamed to it at the end, deleted on an error."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem[:40]}.", suffix=".tmp")
    os.close(handle)
    try:
        yield Path(name)
        os.chmod(name, 0o644)
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def _as_images(frames: Tensor | np.ndarray) -> np.ndarray:
    array = frames.detach().cpu().numpy() if isinstance(frames, Tensor) else frames
    if array.ndim == 4 and array.shape[-1] != 3 and array.shape[0] == 3:
        array = array.transpose(1, 2, 3, 0)
    if array.ndim != 4 or array.shape[-1] != 3 or array.dtype != np.uint8 or 0 in array.shape:
        raise InputError(
            f"frames have shape {array.shape} and dtype {array.dtype}; expected uint8 (3, T, H, W) or (T, H, W, 3)"
        )
    return np.pad(array, ((0, 0), (0, array.shape[1] % 2), (0, array.shape[2] % 2), (0, 0)), mode="edge")


def _open(path: str | Path) -> Any:
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path} does not exist")
    if path.stat().st_size == 0:
        raise InputError(f"{path} is empty (zero bytes)")
    try:
        return av.open(str(path))
    except (av.error.FFmpegError, ValueError) as error:
        raise InputError(f"{path} cannot be opened as a video: {_reason(error)}") from error


def _video_stream(container: Any, path: str | Path) -> Any:
    if not container.streams.video:
        raise InputError(f"{path} has no video stream")
    stream = container.streams.video[0]
    if stream.codec_context is None:
        raise InputError(f"{path}: no decoder for its video stream")
    return stream


def _guard(iterator: Iterator[Any], path: str | Path) -> Iterator[Any]:
    """Pass items on; a decoder's error becomes an InputError that names the file."""
    while True:
        try:
            item = next(iterator)
        except StopIteration:
            return
        except av.error.EOFError:
            return
        except (av.error.FFmpegError, ValueError) as error:
            raise InputError(f"{path} cannot be decoded: {_reason(error)}") from error
        yield item


def _frames(path: str | Path) -> Iterator[Any]:
    with _open(path) as container:
        stream = _video_stream(container, path)
        stream.thread_type = "AUTO"
        for number, frame in enumerate(_guard(container.decode(stream), path)):
            if frame.is_corrupt:
                raise InputError(f"{path}: frame {number} is damaged")
            yield frame


def _resampled(path: str | Path, fps: float | None) -> Iterator[Any]:
    """Frames as stored, or at a constant rate: instant k shows the last frame whose time is at most k / fps.

    A frame may be late by the rounding of its time stamp and still count as on time.
    """
    if fps is None:
        yield from _frames(path)
        return
    if not fps > 0:
        raise InputError(f"{path}: fps={fps}, expected a positive rate")
    info = probe(path)
    previous, origin, emitted = None, 0.0, 0
    tolerance = RATE_TOLERANCE / info.fps
    for number, frame in enumerate(_frames(path)):
        time = frame.time if frame.time is not None else number / info.fps
        if previous is None:
            origin = time
        else:
            while emitted / fps < time - origin - tolerance:
                yield previous
                emitted += 1
        previous = frame
    while previous is not None and emitted / fps < info.duration - tolerance:
        yield previous
        emitted += 1


def _upright(frame: Any) -> np.ndarray:
    # GIF and lossless files that store RGB are exact without the way through 4:4:4.
    image = (frame.reformat(format="rgb24") if frame.format.is_rgb else _convert(frame, "rgb24")).to_ndarray()
    return np.ascontiguousarray(np.rot90(image, k=_quarter_turns(frame)))


def _convert(frame: Any, pixel_format: str) -> Any:
    """Convert between RGB and 4:2:0 by way of 4:4:4.

    swscale's direct conversion truncates: pictures come back one grey level darker, 45 dB instead of 56 dB for a round
    trip.
    """
    return frame.reformat(format="yuv444p").reformat(format=pixel_format)


def _first_rotation(path: str | Path) -> int:
    frame = next(_frames(path), None)
    if frame is None:
        raise InputError(f"{path} holds no decodable video frame")
    return 90 * _quarter_turns(frame)


def _quarter_turns(frame: Any) -> int:
    """Counter-clockwise quarter turns that set a frame upright."""
    return round((frame.rotation or 0) / 90) % 4


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
