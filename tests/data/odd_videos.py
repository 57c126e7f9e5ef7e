"""Make video files as phones, cutters and cameras leave them. Every frame carries its number."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

PATCHES = np.array(
    [[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 0]]
    + [[128, 128, 128], [16, 16, 16], [235, 235, 235], [200, 60, 30]]
)
"""Colours of ``patches``, four above four."""
LOSSLESS = {"qp": "0", "threads": "1"}


def numbered(number: int, width: int = 96, height: int = 64) -> np.ndarray:
    """(H, W, 3): the upper half spells the number in eight bars, lowest digit left; a green corner below left."""
    image = np.full((height, width, 3), 60, np.uint8)
    for digit in range(8):
        columns = slice(digit * width // 8, (digit + 1) * width // 8)
        image[: height // 2, columns] = 215 if number >> digit & 1 else 30
    image[height // 2 :, :, 2] = np.linspace(30, 200, width).astype(np.uint8)
    image[-height // 4 :, : width // 6] = (30, 200, 40)
    return image


def numbers(frames: np.ndarray) -> list[int]:
    """Numbers of (T, H, W, 3) or (3, T, H, W) frames."""
    frames = np.asarray(frames)
    frames = frames.transpose(1, 2, 3, 0) if frames.shape[0] == 3 and frames.shape[-1] != 3 else frames
    height, width = frames.shape[1:3]
    rows = frames[:, height // 8 : 3 * height // 8].mean(axis=(1, 3))
    middles = [int((digit + 0.5) * width / 8) for digit in range(8)]
    return [sum(1 << digit for digit, x in enumerate(middles) if row[x] > 122) for row in rows]


def is_upright(image: np.ndarray) -> bool:
    """Whether the green corner of a (H, W, 3) frame is where it belongs."""
    height, width = image.shape[:2]
    red, green = image[-height // 8 :, : width // 8].mean(axis=(0, 1))[:2]
    return bool(green > 150 and red < 80)


def patches() -> np.ndarray:
    """(32, 64, 3) with the colours of PATCHES."""
    return PATCHES.reshape(2, 4, 3).repeat(16, 0).repeat(16, 1).astype(np.uint8)


def patches_of(image: np.ndarray) -> np.ndarray:
    """(8, 3) mean colours inside the patches of a (H, W, 3) frame."""
    height, width = image.shape[0] // 2, image.shape[1] // 4
    inside = [
        image[row * height + height // 4 : (row + 1) * height - height // 4, x * width + 4 : (x + 1) * width - 4]
        for row in range(2)
        for x in range(4)
    ]
    return np.array([part.mean(axis=(0, 1)) for part in inside])


def encode(
    path: Path,
    images: Sequence[np.ndarray],
    *,
    rate: Fraction | int = 30,
    codec: str = "libx264",
    options: dict[str, str] | None = None,
    pix_fmt: str = "yuv420p",
    times: Sequence[Fraction] | None = None,
    aspect: Fraction | None = None,
    matrix: int = 2,
    full_range: bool = False,
    tags: dict[str, int] | None = None,
) -> Path:
    """Write RGB images, or planes as PyAV takes them for ``pix_fmt``, losslessly unless told otherwise.

    Args:
        times: seconds at which images are shown; None: one after the other.
        aspect: of a pixel.
        matrix: H.273 code point that RGB is converted with and that is written; 2 is BT.601, untagged.
        full_range: of the samples.
        tags: further attributes of the codec context.
    """
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate, options=LOSSLESS if options is None else options)
        rgb = images[0].ndim == 3
        stream.height, stream.width = images[0].shape[:2] if rgb else (images[0].shape[0] * 2 // 3, images[0].shape[1])
        stream.pix_fmt = pix_fmt
        context = stream.codec_context
        if matrix != 2:
            context.colorspace, context.color_range = matrix, 2 if full_range else 1
        elif full_range:
            context.color_range = 2
        for name, value in (tags or {}).items():
            setattr(context, name, value)
        if aspect is not None:
            context.sample_aspect_ratio = aspect
        if times is not None:
            stream.time_base = context.time_base = Fraction(1, 15360)
        for number, image in enumerate(images):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24" if rgb else pix_fmt)
            if rgb:
                standard = {2: 5, 6: 5, 1: 1, 9: 9}[matrix]
                frame = frame.reformat(
                    format="yuv444p", dst_colorspace=standard, dst_color_range=2 if full_range else 1
                ).reformat(format=pix_fmt)
            if times is not None:
                frame.pts, frame.time_base = int(times[number] * 15360), Fraction(1, 15360)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def remux(
    source: Path,
    target: Path,
    *,
    keep: Callable[[int], bool] = lambda number: True,
    hide: float = 0.0,
    before: Path | None = None,
) -> Path:
    """Copy packets to another file.

    Args:
        keep: whether to copy the packet of this number.
        hide: seconds at the beginning that an edit list hides.
        before: file whose video stream comes first.
    """
    with av.open(str(source)) as container, av.open(str(target), "w") as out:
        stream = container.streams.video[0]
        if before is not None:
            with av.open(str(before)) as other:
                first = out.add_stream_from_template(other.streams.video[0])
                cover = [packet for packet in other.demux(other.streams.video[0]) if packet.size]
        copy = out.add_stream_from_template(stream)
        if before is not None:
            first.disposition, copy.disposition = 0, 1
            for packet in cover:
                packet.stream = first
                out.mux(packet)
        packets = (packet for packet in container.demux(stream) if packet.size)
        for number, packet in enumerate(packets):
            if keep(number):
                shift = round(hide / packet.time_base)
                packet.pts, packet.dts, packet.stream = packet.pts - shift, packet.dts - shift, copy
                out.mux(packet)
    return target


def set_matrix(path: Path, a: int, b: int, c: int, d: int) -> Path:
    """Record in an MP4's track header that (column, row) is shown at (a column + c row, b column + d row)."""
    content = bytearray(path.read_bytes())
    start = content.index(b"tkhd") + 4 + 40
    content[start : start + 36] = struct.pack(">9i", a << 16, b << 16, 0, c << 16, d << 16, 0, 0, 0, 1 << 30)
    path.write_bytes(content)
    return path


ORIENTATIONS = [(1, 0, 0, 1), (-1, 0, 0, 1), (1, 0, 0, -1), (-1, 0, 0, -1)] + [
    (0, 1, 1, 0),
    (0, -1, 1, 0),
    (0, 1, -1, 0),
    (0, -1, -1, 0),
]
"""All display matrices (a, b, c, d) of turns by 90 degrees and mirrorings."""


def stored_for(image: np.ndarray, matrix: tuple[int, int, int, int]) -> np.ndarray:
    """The (H, W, 3) picture to store so that a display matrix shows ``image``, pixel by pixel from its definition."""
    a, b, c, d = matrix
    height, width = image.shape[:2]
    rows, columns = (height, width) if a else (width, height)
    row, column = np.mgrid[:rows, :columns]
    x, y = a * column + c * row, b * column + d * row
    return image[y - y.min(), x - x.min()]
