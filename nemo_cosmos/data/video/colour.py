"""Decoded pictures to 8-bit RGB of BT.709 primaries and SDR brightness, which is what the networks know.

Matrix, range, bit depth and chroma subsampling are left to swscale. Transfer curves of HDR (PQ and HLG: ITU-R BT.2100,
tables 4 and 5) and wide primaries (BT.2020, P3) are converted here, as ITU-R BT.2408 relates HDR and SDR: reference
white, 203 cd/m2, becomes white, and what is brighter or outside of the smaller gamut is clipped.
"""

from __future__ import annotations

import functools
import threading
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch
from av.video.reformatter import VideoReformatter
from torch import Tensor

from nemo_cosmos.errors import InputError

PQ, HLG = 16, 18
REFERENCE_WHITE, HLG_PEAK = 203.0, 1000.0
"""cd/m2 (BT.2408, BT.2100)."""
HLG_GAMMA = 1.2
"""Of a display with that peak (BT.2100)."""
DISPLAY_GAMMA = 2.4
"""BT.1886."""
UNSURE_STEPS = 3
"""Code steps of rounding in the way from RGB to YCbCr and back."""

_D65, _DCI_WHITE = (0.3127, 0.3290), (0.314, 0.351)
_PRIMARIES = {  # code point: red, green, blue, white
    1: ((0.640, 0.330), (0.300, 0.600), (0.150, 0.060), _D65),
    9: ((0.708, 0.292), (0.170, 0.797), (0.131, 0.046), _D65),
    11: ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060), _DCI_WHITE),
    12: ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060), _D65),
}
"""Code points of ITU-T H.273. Others (BT.601's, unspecified) are so close to BT.709 that players show them as it."""
_NO_TRANSFER = {8: "linear", 9: "logarithmic", 10: "logarithmic", 17: "SMPTE ST 428-1"}
_NO_PRIMARIES = {10: "CIE XYZ"}
_NO_MATRIX = {
    8: "YCgCo",
    10: "BT.2020 constant luminance",
    11: "SMPTE ST 2085",
    12: "chroma-derived",
    13: "chroma-derived",
    14: "ICtCp",
}


def check_colours(frame: Any, path: str | Path) -> None:
    """InputError when the colours of a frame cannot be converted; names the colour system or pixel format."""
    try:
        frame.reformat(width=16, height=16, format="rgb24")
    except (av.error.FFmpegError, ValueError) as error:
        raise InputError(f"{path}: its pixel format {frame.format.name} cannot be converted to RGB") from error
    found = (
        (_NO_TRANSFER, int(frame.color_trc), "transfer curve"),
        (_NO_PRIMARIES, int(frame.color_primaries), "primaries"),
        (_NO_MATRIX if not frame.format.is_rgb else {}, int(frame.colorspace), "matrix"),
    )
    for names, code, what in found:
        if code in names:
            raise InputError(
                f"{path}: its colours have the {what} {names[code]} (code {code}), which is not converted: convert "
                "it to BT.709 first"
            )
    if frame.side_data.get("DOVI_METADATA") is not None and int(frame.color_trc) not in (1, 14, 15, PQ, HLG):
        raise InputError(
            f"{path}: it is Dolby Vision without a compatible picture, whose colours are not converted: convert it to "
            "BT.709 first"
        )


def is_wide(frame: Any) -> bool:
    """Whether a frame is HDR or has wider primaries than BT.709."""
    return int(frame.color_trc) in (PQ, HLG) or int(frame.color_primaries) in (9, 11, 12)


def to_rgb(frame: Any) -> np.ndarray:
    """A decoded frame as (H, W, 3) uint8, BT.709 primaries, SDR."""
    if is_wide(frame):
        deep = frame if frame.format.is_rgb else _reformat(frame, "yuv444p16le")
        levels = _reformat(deep, "rgb48le").to_ndarray()
        primaries = int(frame.color_primaries)
        bits = frame.format.components[0].bits
        return _to_sdr(levels, int(frame.color_trc), primaries if primaries in _PRIMARIES else 1, bits)
    # GIF and lossless files that store RGB are exact without the way through 4:4:4.
    return (_reformat(frame, "rgb24") if frame.format.is_rgb else convert(frame, "rgb24")).to_ndarray()


def convert(frame: Any, pixel_format: str) -> Any:
    """Convert between RGB and 4:2:0 by way of 4:4:4.

    swscale's direct conversion truncates: pictures come back one grey level darker, 45 dB instead of 56 dB for a round
    trip.
    """
    return _reformat(_reformat(frame, "yuv444p"), pixel_format)


def _reformat(frame: Any, pixel_format: str) -> Any:
    """A frame in another pixel format, of the same size.

    A frame's own method sets swscale up for every frame, with a thread for every core: many times the work of
    converting a small picture.
    """
    look = (frame.width, frame.height, frame.format.name, int(frame.colorspace), int(frame.color_range))
    return _converter(threading.get_ident(), look, pixel_format).reformat(frame, format=pixel_format, **_one_thread())


@functools.lru_cache(maxsize=32)
def _converter(thread: int, look: tuple[int | str, ...], pixel_format: str) -> VideoReformatter:
    """What converts frames that look alike; each thread has its own, because it holds a state."""
    return VideoReformatter()


@functools.cache
def _one_thread() -> dict[str, int]:
    """Keeps swscale from starting threads, which a process forked afterwards would wait for in vain; older versions
    of PyAV start none and have no such option."""
    try:
        VideoReformatter().reformat(av.VideoFrame(16, 16, "yuv420p"), format="rgb24", threads=1)
    except TypeError:
        return {}
    return {"threads": 1}


def _to_sdr(levels: np.ndarray, transfer: int, primaries: int, bits: int) -> np.ndarray:
    """(H, W, 3) uint16 as coded with a precision of ``bits`` -> uint8."""
    curve, codes = _linear(transfer), torch.from_numpy(levels.astype(np.int32))
    light = curve[codes]
    if primaries != 1:
        gamut = _gamut(primaries)
        light = light @ gamut.T
        # A component of a saturated colour is the small difference of large ones. What their rounding alone can make
        # is black: the display's curve would turn it into a visible tint.
        slopes = torch.gradient(curve)[0] * (65535 * UNSURE_STEPS / (219 << (bits - 8)))
        unsure = slopes[codes] @ (gamut.abs() * (1 - torch.eye(3))).T
        light = torch.where(light < 2 * unsure, 2 * (light - unsure), light)
    sdr = light.clamp_(0, 1).pow_(1 / DISPLAY_GAMMA).mul_(255).add_(0.5)
    return sdr.to(torch.uint8).numpy()


@functools.cache
def _linear(transfer: int) -> Tensor:
    """(65536,) light of each coded level; 1 is reference white."""
    coded = np.arange(65536) / 65535
    if transfer == PQ:
        m1, m2, c1, c2, c3 = 2610 / 16384, 2523 / 32, 3424 / 4096, 2413 / 128, 2392 / 128
        root = coded ** (1 / m2)
        light = (np.maximum(root - c1, 0) / (c2 - c3 * root)) ** (1 / m1) * 10000 / REFERENCE_WHITE
    elif transfer == HLG:
        a = 0.17883277
        b, c = 1 - 4 * a, 0.5 - a * np.log(4 * a)
        scene = np.where(coded <= 0.5, coded**2 / 3, (np.exp((coded - c) / a) + b) / 12)
        # The display's curve on each component, as common converters have it; BT.2100's, on luminance, gives the same
        # greys and less saturated colours.
        light = scene**HLG_GAMMA * HLG_PEAK / REFERENCE_WHITE
    else:
        light = coded**DISPLAY_GAMMA
    return torch.from_numpy(light.astype(np.float32))


@functools.cache
def _gamut(primaries: int) -> Tensor:
    """(3, 3) from linear RGB of other primaries to linear RGB of BT.709; the white point is adapted (Bradford)."""
    bradford = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])
    source, target = (_to_xyz(code) for code in (primaries, 1))
    cones = (bradford @ target.sum(1)) / (bradford @ source.sum(1))
    adapt = np.linalg.inv(bradford) @ np.diag(cones) @ bradford
    return torch.from_numpy((np.linalg.inv(target) @ adapt @ source).astype(np.float32))


def _to_xyz(primaries: int) -> np.ndarray:
    """(3, 3) from linear RGB to CIE XYZ."""
    columns = np.array([(x / y, 1.0, (1 - x - y) / y) for x, y in _PRIMARIES[primaries]]).T
    return columns[:, :3] * np.linalg.solve(columns[:, :3], columns[:, 3])
