"""Models of COLMAP: cameras and images as text or binary files; its 3-D points are not needed."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import torch
from torch import Tensor

from nemo_cosmos.camera.rotations import from_quaternion, to_unit_quaternions
from nemo_cosmos.camera.track import Track, make_track
from nemo_cosmos.errors import InputError, require_file
from nemo_cosmos.typed import read_text

T = TypeVar("T")
FOLDERS = ("", "sparse/0", "sparse", "colmap/sparse/0", "0")
"""Where the two files are looked for in a folder."""
LONGEST_NAME = 4096
LARGEST_TEXT = 1 << 30
POINT_BYTES = 24
"""Of an image's 2-D point in the binary form: x, y and the number of its 3-D point."""


@dataclass(frozen=True)
class _Model:
    """A camera model: its number of parameters, and those of focal length and centre among them."""

    name: str
    count: int
    pinhole: tuple[int, int, int, int] | None = None


_ONE_FOCAL, _TWO_FOCAL = (0, 0, 1, 2), (0, 1, 2, 3)
MODELS = {
    0: _Model("SIMPLE_PINHOLE", 3, _ONE_FOCAL),
    1: _Model("PINHOLE", 4, _TWO_FOCAL),
    2: _Model("SIMPLE_RADIAL", 4, _ONE_FOCAL),
    3: _Model("RADIAL", 5, _ONE_FOCAL),
    4: _Model("OPENCV", 8, _TWO_FOCAL),
    5: _Model("OPENCV_FISHEYE", 8),
    6: _Model("FULL_OPENCV", 12, _TWO_FOCAL),
    7: _Model("FOV", 5),
    8: _Model("SIMPLE_RADIAL_FISHEYE", 4),
    9: _Model("RADIAL_FISHEYE", 5),
    10: _Model("THIN_PRISM_FISHEYE", 12),
}
"""By COLMAP's number of the model."""
_BY_NAME = {model.name: model for model in MODELS.values()}


@dataclass(frozen=True)
class _Camera:
    model: _Model
    size: tuple[int, int]
    values: tuple[float, ...]

    def intrinsics(self) -> list[float]:
        """fx, fy, cx, cy in pixels."""
        assert self.model.pinhole is not None
        return [self.values[place] for place in self.model.pinhole]

    @property
    def distorted(self) -> bool:
        assert self.model.pinhole is not None
        return any(self.values[max(self.model.pinhole) + 1 :])


@dataclass(frozen=True)
class _Image:
    name: str
    quaternion: tuple[float, ...]
    translation: tuple[float, ...]
    camera: int


def model_folder(folder: Path) -> Path | None:
    """Where the model lies in a folder, None where none does."""
    for name in FOLDERS:
        for suffix in (".bin", ".txt"):
            if all((folder / name / f"{part}{suffix}").is_file() for part in ("cameras", "images")):
                return folder / name
    return None


def read_colmap(folder: Path) -> Track:
    """The cameras of a COLMAP model, sorted by the names of the images; the binary form where both are there.

    Poses become camera-to-world; COLMAP has OpenCV's axes, and the same place for the centre of a pixel. Distortion is
    not undone.

    Raises:
        InputError: no model in the folder, a cut off or otherwise damaged file, an image of a camera that is not
            there, a fisheye camera, or a name twice. The message names file and image.
    """
    place = model_folder(folder)
    if place is None:
        raise InputError(f"{folder} has no COLMAP model: expected cameras and images as .bin or .txt, or in sparse/0")
    binary = (place / "cameras.bin").is_file() and (place / "images.bin").is_file()
    suffix, read = (".bin", _read_binary) if binary else (".txt", _read_text)
    cameras, images = read(place / f"cameras{suffix}", place / f"images{suffix}")
    where = str(place / f"images{suffix}")
    if not images:
        raise InputError(f"{where} has no images")
    used = [_camera_of(image, cameras, where) for image in images]
    return make_track(
        where,
        [image.name for image in images],
        _poses(where, images),
        torch.tensor([camera.intrinsics() for camera in used], dtype=torch.float64),
        [camera.size for camera in used],
        distorted=any(camera.distorted for camera in used),
    )


def _camera_of(image: _Image, cameras: dict[int, _Camera], where: str) -> _Camera:
    camera = cameras.get(image.camera)
    if camera is None:
        raise InputError(f"{where}: {image.name}: its camera {image.camera} is not in the model")
    if camera.model.pinhole is None:
        raise InputError(
            f"{where}: {image.name}: cameras of the model {camera.model.name} are not read: rays are those of pinhole "
            "cameras; run colmap image_undistorter first"
        )
    return camera


def _poses(where: str, images: list[_Image]) -> Tensor:
    """(N, 4, 4) camera-to-world of world-to-camera rotations and translations."""
    names = [image.name for image in images]
    quaternions = torch.tensor([image.quaternion for image in images], dtype=torch.float64)
    rotation = from_quaternion(to_unit_quaternions(where, names, quaternions)).mT
    translation = torch.tensor([image.translation for image in images], dtype=torch.float64)
    poses = torch.eye(4, dtype=torch.float64).repeat(len(images), 1, 1)
    poses[:, :3, :3], poses[:, :3, 3] = rotation, -(rotation @ translation[..., None])[..., 0]
    return poses


_Parts = tuple[dict[int, _Camera], list[_Image]]


def _read_text(cameras: Path, images: Path) -> _Parts:
    found: dict[int, _Camera] = {}
    for number, line in _lines(cameras):
        if line:
            identity, camera = _parsed(_text_camera, line, cameras, number)
            found[identity] = camera
    return found, list(_text_images(images))


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Lines of a text file with their numbers; comments are left out, empty lines are not."""
    for number, line in enumerate(io.StringIO(read_text(path, LARGEST_TEXT)), 1):
        if not line.lstrip().startswith("#"):
            yield number, line.strip()


def _parsed(parse: Callable[[str], T], line: str, path: Path, number: int) -> T:
    """What a line says; InputError names the line that says nothing."""
    try:
        return parse(line)
    except InputError as error:
        raise InputError(f"{path}, line {number}: {error}") from error
    except (ValueError, IndexError, OverflowError) as error:
        raise InputError(f"{path}, line {number}: not a line of a COLMAP model ({error})") from error


def _text_camera(line: str) -> tuple[int, _Camera]:
    """Of ``CAMERA_ID MODEL WIDTH HEIGHT PARAMS[]``."""
    words = line.split()
    model = _BY_NAME.get(words[1])
    if model is None:
        raise InputError(f"unknown camera model {words[1][:40]!r}")
    values = tuple(map(float, words[4:]))
    if len(values) != model.count:
        raise InputError(f"{model.name} has {model.count} parameters, found {len(values)}")
    return int(words[0]), _Camera(model, (int(words[3]), int(words[2])), values)


def _text_images(path: Path) -> Iterator[_Image]:
    """Two lines an image: ``IMAGE_ID QW QX QY QZ TX TY TZ CAMERA_ID NAME``, and its points, which may be none."""
    lines = _lines(path)
    for number, line in lines:
        if line:
            yield _parsed(_text_image, line, path, number)
            next(lines, None)


def _text_image(line: str) -> _Image:
    words = line.split(maxsplit=9)
    quaternion, translation = tuple(map(float, words[1:5])), tuple(map(float, words[5:8]))
    return _Image(words[9], quaternion, translation, int(words[8]))


def _read_binary(cameras: Path, images: Path) -> _Parts:
    with _Reader(cameras) as file:
        count = file.count(48)  # Bytes of the smallest camera.
        found = dict(_binary_camera(file) for _ in range(count))
    with _Reader(images) as file:
        return found, [_binary_image(file) for _ in range(file.count(73))]


def _binary_camera(file: _Reader) -> tuple[int, _Camera]:
    number, kind, width, height = file.unpack("<iiQQ")
    model = MODELS.get(kind)
    if model is None:
        raise InputError(f"{file.path} is damaged: unknown camera model {kind}")
    return number, _Camera(model, (height, width), file.unpack(f"<{model.count}d"))


def _binary_image(file: _Reader) -> _Image:
    _, *pose, camera = file.unpack("<i7di")
    name = file.name()
    (points,) = file.unpack("<Q")
    file.skip(points * POINT_BYTES)
    return _Image(name, tuple(pose[:4]), tuple(pose[4:]), camera)


class _Reader:
    """A binary file of which no more is read, and no more room taken, than it has."""

    def __init__(self, path: Path) -> None:
        require_file(path)
        self.path = path
        try:
            self._file: BinaryIO = path.open("rb")
        except OSError as error:
            raise InputError(f"{path} cannot be read: {error.strerror}") from error
        self._left = path.stat().st_size

    def __enter__(self) -> _Reader:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def unpack(self, form: str) -> tuple[Any, ...]:
        """The next numbers."""
        size = struct.calcsize(form)
        self._take(size)
        return struct.unpack(form, self._file.read(size))

    def count(self, least: int) -> int:
        """The number of items that follow, of at least ``least`` bytes each."""
        (count,) = self.unpack("<Q")
        if count * least > self._left:
            raise InputError(f"{self.path} is damaged: {count} items cannot be in the {self._left} bytes that follow")
        return count

    def name(self) -> str:
        """The next text, which a zero ends."""
        content = bytearray()
        while (byte := self.unpack("c")[0]) != b"\0":
            content += byte
            if len(content) > LONGEST_NAME:
                raise InputError(f"{self.path} is damaged: a name of more than {LONGEST_NAME} bytes")
        return content.decode("utf-8", "surrogateescape")

    def skip(self, size: int) -> None:
        self._take(size)
        self._file.seek(size, io.SEEK_CUR)

    def _take(self, size: int) -> None:
        self._left -= size
        if self._left < 0:
            raise InputError(f"{self.path} is damaged: it ends early; copy it again")
