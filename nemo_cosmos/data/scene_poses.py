"""The poses of a scene: its ``transforms.json``, or its model of COLMAP."""

from __future__ import annotations

from pathlib import Path

from nemo_cosmos.camera.colmap import read_colmap
from nemo_cosmos.camera.track import Track
from nemo_cosmos.camera.transforms import parse_transforms
from nemo_cosmos.data.scenes import TRANSFORMS, Files, Scene, alike, sparse_folder
from nemo_cosmos.errors import InputError
from nemo_cosmos.typed import LARGEST_FILE

UNKNOWN = (1, 1)
MIDDLE = (0.25, 0.75)
"""Share of a picture's side within which the centre of an honest camera lies."""


def poses_file(scene: Scene) -> Path:
    """The file of an unpacked scene that changes with its poses."""
    if not scene.colmap:
        return scene.path / TRANSFORMS
    folder = sparse_folder(scene.path)
    assert folder is not None, "the scene was found by it"
    return folder / ("images.bin" if (folder / "images.bin").is_file() else "images.txt")


def read_track(scene: Scene, files: Files, image_size: tuple[int, int]) -> Track:
    """The posed frames of a scene.

    Args:
        scene: which one.
        files: its files.
        image_size: (height, width) of its pictures, which intrinsics without a size are in; ``UNKNOWN`` for the names
            alone.

    Raises:
        InputError: there are none, they are damaged or no poses, or it cannot be told which size they are in.
    """
    if scene.colmap:
        return read_colmap(poses_file(scene).parent)
    if TRANSFORMS not in files.names:
        raise InputError(f"{scene.path} holds no {TRANSFORMS}: there are no poses")
    content, where = files.read(TRANSFORMS), files.where(TRANSFORMS)
    if len(content) > LARGEST_FILE:
        raise InputError(f"{where} has {len(content) >> 20} MiB: it is something else")
    told = parse_transforms(content, where, UNKNOWN)
    if image_size == UNKNOWN or told.cameras.size != UNKNOWN:
        return told
    track = parse_transforms(content, where, image_size)
    if _central(track):
        return track
    # Without w and h: perhaps of the pictures before they were made smaller.
    cx, cy = track.cameras.intrinsics[0, 2:].tolist()
    full = (round(2 * cy), round(2 * cx))
    if min(full) < 1 or not alike(image_size, full):
        raise InputError(
            f"{where}: the keys 'w' and 'h' are missing, and cx={cx:g}, cy={cy:g} is not the middle of the pictures "
            f"of {image_size[1]} x {image_size[0]} pixels: add the size that the intrinsics are in"
        )
    return parse_transforms(content, where, full)


def _central(track: Track) -> bool:
    """Whether the centre of the first camera lies about the middle of its picture."""
    height, width = track.cameras.size
    cx, cy = track.cameras.intrinsics[0, 2:].tolist()
    return all(MIDDLE[0] <= place <= MIDDLE[1] for place in (cx / width, cy / height))
