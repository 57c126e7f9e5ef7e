"""The cameras of a capture as its pose file tells them: named frames, perhaps with times, of one picture size."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import PurePosixPath

import torch
from torch import Tensor

from nemo_cosmos.camera.rays import Cameras, check_intrinsics, check_poses
from nemo_cosmos.data.images import IMAGE_SUFFIXES
from nemo_cosmos.errors import InputError

SIDES = (1, 1 << 16)
MOST_FRAMES = 1_000_000
SMALLEST_STEP = 1e-9
"""Seconds by which a later frame must be later."""


@dataclass(eq=False)
class Track:
    """Cameras with the names of their frames, sorted by name or by time.

    Attributes:
        names: file name of each frame as the pose file has it, ``/`` between folders.
        cameras: their poses in OpenCV axes, in the file's own world and units, and their intrinsics. Where pictures
            differ in size the intrinsics of each are those of its picture scaled to ``cameras.size``.
        times: (N,) float64 seconds that grow from frame to frame; None where the file has none.
        distorted: whether the file names lens distortion, which rays of a pinhole camera leave out.
    """

    names: list[str]
    cameras: Cameras
    times: Tensor | None = None
    distorted: bool = False

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, frames: slice | Sequence[int]) -> Track:
        """The track of some frames, times as they are."""
        indices = range(len(self))[frames] if isinstance(frames, slice) else frames
        times = None if self.times is None else self.times[list(indices)]
        cameras = self.cameras[list(indices)]
        return replace(self, names=[self.names[i] for i in indices], cameras=cameras, times=times)


def make_track(
    where: str,
    names: Sequence[str],
    poses: Tensor,
    intrinsics: Tensor,
    sizes: Sequence[tuple[int, int]],
    *,
    times: Sequence[float] | None = None,
    distorted: bool = False,
) -> Track:
    """Check what a file says, bring it to one size and sort it: by time where there is one, else by name.

    Args:
        where: names the file in errors.
        names: of the frames.
        poses: (N, 4, 4) camera-to-world in OpenCV axes.
        intrinsics: (N, 4) fx, fy, cx, cy in pixels of each frame's size.
        sizes: height and width of every frame.

    Raises:
        InputError: no frame, a name or a time twice, or no camera's numbers. The message names file and frame.
    """
    if not names:
        raise InputError(f"{where} has no frame with a pose")
    if len(names) > MOST_FRAMES:
        raise InputError(f"{where} has {len(names)} frames, expected at most {MOST_FRAMES}")
    for size, name in zip(sizes, names, strict=True):
        if not all(SIDES[0] <= side <= SIDES[1] for side in size):
            raise InputError(f"{where}: {name}: pictures of {size[1]} x {size[0]} pixels, expected 1 to {SIDES[1]}")
    labels = [f"{where}: {name}" for name in names]
    poses, intrinsics = poses.double(), intrinsics.double()
    check_poses(poses, labels)
    check_intrinsics(intrinsics, len(poses), labels)
    first = torch.tensor(sizes[0], dtype=torch.float64)
    factors = (first / torch.tensor(sizes, dtype=torch.float64)).flip(-1).repeat(1, 2)
    if times is None:
        order = sorted(range(len(names)), key=lambda i: natural_order(names[i]))
        _refuse_twice(where, names)
    else:
        order = _in_time(where, names, times)
    track = Track(list(names), Cameras(poses, intrinsics * factors, sizes[0]), None, distorted)[order]
    return (
        track if times is None else replace(track, times=torch.tensor([times[i] for i in order], dtype=torch.float64))
    )


def _refuse_twice(where: str, names: Sequence[str]) -> None:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise InputError(f"{where}: the frame {name!r} is there twice; leave one of them out")
        seen.add(name)


def _in_time(where: str, names: Sequence[str], times: Sequence[float]) -> list[int]:
    """Order of the frames in time."""
    for name, time in zip(names, times, strict=True):
        if not abs(time) < 1e15:  # NaN compares as False.
            raise InputError(f"{where}: {name}: time {time} is no number of seconds")
    order = sorted(range(len(times)), key=lambda i: times[i])
    for before, after in pairwise(order):
        if times[after] - times[before] < SMALLEST_STEP:
            raise InputError(f"{where}: {names[before]} and {names[after]} have the same time {times[after]:g}")
    return order


def natural_order(name: str) -> list[tuple[int, str]]:
    """Sorts names as people count: ``frame_9`` before ``frame_10``."""
    numbers_apart = enumerate(re.split(r"([0-9]+)", name))
    return [(len(part.lstrip("0")), part.lstrip("0")) if i % 2 else (0, part) for i, part in numbers_apart]


def match_images(track: Track, images: Sequence[str], where: str = "the pose file") -> list[int | None]:
    """Number of the pose of every image, by name: its path where that is in the track, else its stem; None for none.

    Image folders of another resolution (``images_4``) and another suffix than the pose file's fit by their stems.

    Raises:
        InputError: two poses have the stem of an image, or two images take the same pose.
    """
    paths = {PurePosixPath(name).as_posix(): i for i, name in enumerate(track.names)}
    stems: dict[str, list[int]] = {}
    for i, name in enumerate(track.names):
        stems.setdefault(_stem(name), []).append(i)
    found: list[int | None] = []
    taken: dict[int, str] = {}
    for image in images:
        path = PurePosixPath(image.replace("\\", "/")).as_posix()
        same = [paths[path]] if path in paths else stems.get(_stem(path), [])
        if len(same) > 1:
            both = " and ".join(repr(track.names[i]) for i in same[:2])
            raise InputError(f"{where}: {both} both fit the image {image!r}; leave one of them out")
        if same and same[0] in taken:
            both = f"{taken[same[0]]!r} and {image!r}"
            pose = track.names[same[0]]
            raise InputError(f"{where}: the images {both} have the same pose {pose!r}; leave one of them out")
        taken.update(dict.fromkeys(same, image))
        found.append(same[0] if same else None)
    return found


def _stem(name: str) -> str:
    """Name of a picture without folders and suffix; names in pose files may have none, and points of their own."""
    path = PurePosixPath(name)
    return path.stem if path.suffix.lower() in IMAGE_SUFFIXES else path.name
