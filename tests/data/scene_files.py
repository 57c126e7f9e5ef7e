"""Scenes of a few small pictures whose colour is their number, as zips and folders."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

SIZE = (18, 32)
"""(height, width) of the pictures."""


def colour(number: int) -> tuple[int, int, int]:
    """Of a picture: red counts in steps of 8, which JPEG keeps, green in steps of 64."""
    return number % 30 * 8, number // 30 * 64, 128


def number_of(pixel: Any) -> int:
    """The picture whose colour a pixel has."""
    red, green, _ = (int(value) for value in pixel)
    return round(red / 8) + 30 * round(green / 64)


def picture(number: int, size: tuple[int, int] = SIZE, kind: str = "PNG") -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (size[1], size[0]), colour(number)).save(file, kind)
    return file.getvalue()


def pose(number: int) -> list[list[float]]:
    """OpenGL camera to world: one unit to the right with every picture."""
    matrix = np.eye(4)
    matrix[0, 3] = number
    return matrix.tolist()


def transforms(names: Sequence[str], size: tuple[int, int] | None = SIZE, **changes: Any) -> dict[str, Any]:
    """Poses of pictures 0, 1, 2, ... of these names; focal length is the width."""
    height, width = SIZE if size is None else size
    values: dict[str, Any] = {"fl_x": width, "fl_y": width, "cx": width / 2, "cy": height / 2, "k1": 0.0}
    if size is not None:
        values |= {"w": width, "h": height}
    values["frames"] = [{"file_path": name, "transform_matrix": pose(n)} for n, name in enumerate(names)]
    return {**values, **changes}


def scene(
    count: int = 12, size: tuple[int, int] = SIZE, folder: str = "images", described: tuple[int, int] | None = SIZE
) -> dict[str, bytes]:
    """Files of a scene by name: pictures, and poses that speak of pictures of size ``described``."""
    names = [f"frame_{n:05d}.png" for n in range(count)]
    files = {f"{folder}/{name}": picture(n, size) for n, name in enumerate(names)}
    poses = transforms([f"images/{name}" for name in names], described)
    return {**files, "transforms.json": json.dumps(poses).encode()}


def write_zip(path: Path, files: dict[str, bytes], *, nested: bool = True) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(f"{path.stem}/{name}" if nested else name, content)
    return path


def write_folder(path: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(content)
    return path


def colmap(count: int = 12, size: tuple[int, int] = SIZE) -> dict[str, bytes]:
    """The same way of the camera as a text model of COLMAP: world to camera, axes right, down, forward."""
    height, width = size
    cameras = f"# cameras\n1 PINHOLE {width} {height} {width} {width} {width / 2} {height / 2}\n"
    # The OpenGL camera turned about x by half a turn: quaternion 0 1 0 0 in both directions; t = -R c.
    images = "".join(f"{n + 1} 0 1 0 0 {-n} 0 0 1 photo_{n}.jpg\n\n" for n in range(count))
    files = {f"images/photo_{n}.jpg": picture(n, size, "JPEG") for n in range(count)}
    return {**files, "sparse/0/cameras.txt": cameras.encode(), "sparse/0/images.txt": images.encode()}
