"""Write H.264 files that any player and browser opens, in the colours that they assume."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from torch import Tensor

from nemo_cosmos.atomic import finished_file
from nemo_cosmos.data.video.colour import convert
from nemo_cosmos.errors import InputError, require_replaceable

CONTAINERS = {".mp4": "mp4", ".m4v": "mp4", ".mov": "mov", ".mkv": "matroska", ".avi": "avi"}
"""Suffixes of files that H.264 can be written to, with FFmpeg's names of the formats."""

_REPRODUCIBLE = {"threads": "1", "x264-params": "cpu-independent=1"}
"""The same frames give the same file. x264's output depends on the number of threads, and that of its AVX code for
costs of macroblocks on what happens to lie in fresh memory."""
_BT601, _LIMITED_RANGE = 6, 1  # H.264 code points of the conversion that swscale applies


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
    if not 0 < fps < math.inf or not 0 <= quality <= 51:
        raise InputError(f"{path}: fps={fps}, quality={quality}: expected fps > 0 and quality in 0..51")
    stream: Any = None
    with _output(Path(path)) as container:

        def write(frames: Tensor | np.ndarray) -> None:
            nonlocal stream
            images = _as_images(frames)
            if stream is None:
                rate = Fraction(fps).limit_denominator(1001)
                stream = h264_stream(container, images.shape[1:3], rate, quality)
            if images.shape[1:3] != (stream.height, stream.width):
                raise InputError(
                    f"{path}: frames of {images.shape[1]}x{images.shape[2]} after {stream.height}x{stream.width}"
                )
            for image in images:
                container.mux(stream.encode(_as_frame(image)))

        yield write
        if stream is None:
            raise InputError(f"{path}: no frames to write")
        container.mux(stream.encode())


@contextlib.contextmanager
def timed_writer(
    path: str | Path, rate: Fraction, time_base: Fraction, quality: int = 18
) -> Iterator[Callable[[Tensor, int], None]]:
    """As ``video_writer``, for frames with times of their own.

    Gives a function that appends a (3, H, W) uint8 RGB frame, to be shown at a time in units of ``time_base``.

    Args:
        path: as in ``video_writer``.
        rate: nominal frame rate.
        time_base: seconds of a unit of time.
        quality: as in ``video_writer``.
    """
    stream: Any = None
    with _output(Path(path)) as container:

        def write(image: Tensor, time: int) -> None:
            nonlocal stream
            pixels = _as_images(image.unsqueeze(1))
            if stream is None:
                stream = h264_stream(container, pixels.shape[1:3], rate, quality)
                stream.time_base = stream.codec_context.time_base = time_base
            frame = _as_frame(pixels[0])
            frame.pts, frame.time_base = time, time_base
            container.mux(stream.encode(frame))

        yield write
        if stream is None:
            raise InputError(f"{path}: no frames to write")
        container.mux(stream.encode())


def h264_stream(container: Any, size: tuple[int, ...], rate: Fraction, quality: int) -> Any:
    """A new H.264 stream for frames of (height, width) ``size``."""
    options = {"crf": str(quality), **_REPRODUCIBLE}
    stream = container.add_stream("libx264", rate=rate, options=options)
    stream.height, stream.width, stream.pix_fmt = *size, "yuv420p"
    # Players guess the matrix of an untagged file from its height, and would show 704 rows in other colours.
    stream.codec_context.colorspace, stream.codec_context.color_range = _BT601, _LIMITED_RANGE
    return stream


@contextlib.contextmanager
def _output(path: Path) -> Iterator[Any]:
    """A container to write to, in the format of the suffix; the file appears under its name when complete."""
    kind = CONTAINERS.get(path.suffix.lower(), "mp4")
    movflags = {"movflags": "+faststart"} if kind in ("mp4", "mov") else {}
    require_replaceable(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with finished_file(path) as temporary, av.open(str(temporary), "w", format=kind, options=movflags) as container:
        yield container


def _as_images(frames: Tensor | np.ndarray) -> np.ndarray:
    array = frames.detach().cpu().numpy() if isinstance(frames, Tensor) else frames
    if array.ndim == 4 and array.shape[-1] != 3 and array.shape[0] == 3:
        array = array.transpose(1, 2, 3, 0)
    if array.ndim != 4 or array.shape[-1] != 3 or array.dtype != np.uint8 or 0 in array.shape:
        raise InputError(
            f"frames have shape {array.shape} and dtype {array.dtype}; expected uint8 (3, T, H, W) or (T, H, W, 3)"
        )
    return np.pad(array, ((0, 0), (0, array.shape[1] % 2), (0, array.shape[2] % 2), (0, 0)), mode="edge")


def _as_frame(image: np.ndarray) -> Any:
    return convert(av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24"), "yuv420p")
