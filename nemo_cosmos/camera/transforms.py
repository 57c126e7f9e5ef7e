"""Pose files ``transforms.json`` of nerfstudio, DL3DV and others of their form.

Of the key ``applied_transform``, a rigid change of the world that was done already, and ``applied_scale`` nothing has
to be undone: rays are relative to the first camera and divided by the trajectory's size.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from nemo_cosmos.camera.rays import swap_axes
from nemo_cosmos.camera.track import Track, make_track
from nemo_cosmos.data.images import IMAGE_SUFFIXES, read_image
from nemo_cosmos.errors import InputError
from nemo_cosmos.typed import parse_json, read_text

PINHOLE_MODELS = ("OPENCV", "PINHOLE", "SIMPLE_PINHOLE", "RADIAL", "SIMPLE_RADIAL", "PERSPECTIVE")
DISTORTION = ("k1", "k2", "k3", "k4", "k5", "k6", "p1", "p2")


def read_transforms(path: Path, image_size: tuple[int, int] | None = None) -> Track:
    """:func:`parse_transforms` of a file; without ``w`` and ``h`` the size of its first image is read where it lies.

    Raises:
        InputError: as :func:`parse_transforms`, or the file cannot be read.
    """
    return parse_transforms(read_text(path), str(path), image_size, path.parent)


def parse_transforms(
    content: str | bytes, where: str, image_size: tuple[int, int] | None = None, folder: Path | None = None
) -> Track:
    """The cameras of a ``transforms.json``, sorted by the names of their frames.

    Intrinsics stand at the top, or at a frame, which goes before. ``fl_y`` is ``fl_x`` where it is missing,
    ``camera_angle_x`` (radians) may stand for ``fl_x``, and a missing centre is the middle. Distortion is not undone.
    Frames are in the order of their key ``time`` where each has another one.

    Args:
        content: the text.
        where: names the file in errors.
        image_size: height and width that intrinsics are in where the file has no ``w`` and ``h``.
        folder: where ``file_path`` of the first frame is looked for if neither is known.

    Raises:
        InputError: no such JSON, no frames, no size, no focal length, a matrix that is no rotation and translation,
            a name twice, or a fisheye or panorama camera. The message names the frame.
    """
    values = _object(content, where)
    frames = values.get("frames")
    if not isinstance(frames, list) or not frames:
        raise InputError(f"{where}: expected a list of frames with poses under the key 'frames'")
    named = [_frame_name(frame, f"{where}: frames[{i}]") for i, frame in enumerate(frames)]
    labels = [f"{where}: {name}" for name in named]
    size = image_size if image_size is not None or _has_size(values) else _size_of_image(folder, named[0])
    found = [_Intrinsics(frame, values, label, size) for frame, label in zip(frames, labels, strict=True)]
    matrices = [_matrix(frame, label) for frame, label in zip(frames, labels, strict=True)]
    return make_track(
        where,
        named,
        swap_axes(torch.tensor(matrices, dtype=torch.float64)),
        torch.tensor([camera.numbers for camera in found], dtype=torch.float64),
        [camera.size for camera in found],
        times=_times(frames),
        distorted=any(camera.distorted for camera in found),
    )


def _object(content: str | bytes, where: str) -> Mapping[str, Any]:
    try:
        values = parse_json(content)
    except ValueError as error:
        raise InputError(f"{where} is damaged: no JSON ({error})") from error
    if not isinstance(values, dict):
        raise InputError(f"{where}: expected a JSON object, found {type(values).__name__}")
    return values


def _frame_name(frame: Any, where: str) -> str:
    if not isinstance(frame, dict):
        raise InputError(f"{where}: expected an object, found {type(frame).__name__}")
    name = frame.get("file_path")
    if not isinstance(name, str) or not name.strip("./\\") or "\0" in name:
        raise InputError(f"{where}: expected the name of its image under the key 'file_path'")
    return name.replace("\\", "/").removeprefix("./")


def _matrix(frame: Mapping[str, Any], where: str) -> list[list[float]]:
    """Rows of ``transform_matrix``, of which the last may be missing."""
    rows = frame.get("transform_matrix")
    if not isinstance(rows, list) or len(rows) not in (3, 4):
        raise InputError(f"{where}: expected 3 or 4 rows of 4 numbers under the key 'transform_matrix'")
    for row in rows:
        if not isinstance(row, list) or len(row) != 4:
            raise InputError(f"{where}: expected 3 or 4 rows of 4 numbers under the key 'transform_matrix'")
    matrix = [[_number(value, f"{where}: transform_matrix", finite=False) for value in row] for row in rows]
    return [*matrix, [0.0, 0.0, 0.0, 1.0]][:4]


def _times(frames: list[dict[str, Any]]) -> list[float] | None:
    """Seconds of every frame; None unless each has its own: several cameras may have pictures of the same moment."""
    times = [frame.get("time") for frame in frames]
    if any(isinstance(time, bool) or not isinstance(time, int | float) for time in times):
        return None
    return times if len(set(times)) == len(times) else None  # type: ignore[return-value]


def _number(value: Any, where: str, *, finite: bool = True) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InputError(f"{where}: expected a number, found {type(value).__name__}")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if finite and not math.isfinite(number):
        raise InputError(f"{where}: expected a finite number, found {number}")
    return number


def _has_size(values: Mapping[str, Any]) -> bool:
    return values.get("w") is not None and values.get("h") is not None


def _size_of_image(folder: Path | None, name: str) -> tuple[int, int] | None:
    """Height and width of a picture beside the file, None where it is not there."""
    if folder is None:
        return None
    # Blender's exports leave the suffix out.
    place = next((place for s in ("", *IMAGE_SUFFIXES) if (place := folder / f"{name}{s}").is_file()), None)
    if place is None:
        return None
    height, width = read_image(place).shape[1:]
    return height, width


class _Intrinsics:
    """What a frame, or else the top of the file, says of the camera."""

    def __init__(
        self, frame: Mapping[str, Any], top: Mapping[str, Any], where: str, size: tuple[int, int] | None
    ) -> None:
        self._values, self._where = (frame, top), where
        self._require_pinhole()
        height, width = self._get("h"), self._get("w")
        if height is None or width is None:
            if size is None:
                raise InputError(f"{where}: the keys 'w' and 'h' are missing: add the size in pixels of the images")
            height, width = size
        self.size = self._whole("h", height), self._whole("w", width)
        self.numbers = self._numbers()
        self.distorted = any(self._get(name) for name in DISTORTION)

    def _numbers(self) -> list[float]:
        height, width = self.size
        fx, fy = self._get("fl_x"), self._get("fl_y")
        if fx is None and (angle := self._get("camera_angle_x")) is not None:
            if not 0 < angle < math.pi:
                raise InputError(f"{self._where}: camera_angle_x={angle:g}, expected radians between 0 and pi")
            fx = width / 2 / math.tan(angle / 2)
        if fx is None and fy is None:
            raise InputError(f"{self._where}: the key 'fl_x' is missing: add the focal length in pixels")
        cx, cy = self._get("cx"), self._get("cy")
        fx, fy = (fx, fy) if fx is not None and fy is not None else (fx or fy, fx or fy)
        return [fx or 0.0, fy or 0.0, width / 2 if cx is None else cx, height / 2 if cy is None else cy]

    def _whole(self, name: str, value: float) -> int:
        if value != int(value):
            raise InputError(f"{self._where}: {name}={value:g}, expected a whole number of pixels")
        return int(value)

    def _get(self, name: str) -> float | None:
        for values in self._values:
            if values.get(name) is not None:
                return _number(values[name], f"{self._where}: {name}")
        return None

    def _require_pinhole(self) -> None:
        frame, top = self._values
        model = frame.get("camera_model") or top.get("camera_model") or "OPENCV"
        if not isinstance(model, str) or model.upper() not in PINHOLE_MODELS:
            raise InputError(
                f"{self._where}: camera_model {str(model)[:40]!r} is not read: rays are those of pinhole cameras "
                f"({', '.join(PINHOLE_MODELS)}); undistort the images first"
            )
