"""The trajectory that a clip is made along: by name, or of a pose file."""

from __future__ import annotations

import logging
import re
from pathlib import Path

import torch

from nemo_cosmos.camera.colmap import model_folder, read_colmap
from nemo_cosmos.camera.csv_poses import DEFAULT_FOV, read_csv_poses
from nemo_cosmos.camera.presets import PRESETS, preset_cameras
from nemo_cosmos.camera.rays import Cameras, fitted
from nemo_cosmos.camera.resample import at_rate, interpolate
from nemo_cosmos.camera.track import Track
from nemo_cosmos.camera.transforms import read_transforms
from nemo_cosmos.choices import Fit
from nemo_cosmos.errors import InputError

log = logging.getLogger(__name__)
FRAMES = 57
"""Of a clip of the released networks with camera control."""


def read_track(path: Path, size: tuple[int, int] | None = None, *, fov: float = DEFAULT_FOV) -> Track:
    """The cameras of a pose file: a ``.json`` of nerfstudio's form, a ``.csv``, or a folder.

    A folder holds a ``transforms.json`` or a COLMAP model.

    Args:
        path: the file or folder.
        size: height and width that intrinsics of a table are in where it does not say it.
        fov: degrees from left to right, where a table has no intrinsics.

    Raises:
        InputError: no such file, or another kind of file, or as the reader of its kind.
    """
    if path.is_dir():
        if (path / "transforms.json").is_file():
            return read_transforms(path / "transforms.json")
        if model_folder(path) is not None:
            return read_colmap(path)
        raise InputError(f"{path}: expected a transforms.json or a COLMAP model in the folder")
    if path.suffix.lower() == ".json":
        return read_transforms(path)
    if path.suffix.lower() == ".csv":
        return read_csv_poses(path, size, fov)
    raise InputError(f"{path}: expected poses as .json (nerfstudio, DL3DV), .csv or a folder with a COLMAP model")


def read_trajectory(
    spec: str | Path,
    frames: int = FRAMES,
    size: tuple[int, int] = (704, 1280),
    *,
    fit: Fit = "crop",
    fps: float | None = None,
    start: int = 0,
    fov: float = DEFAULT_FOV,
    picture: tuple[int, int] | None = None,
    resample: bool = False,
) -> Cameras:
    """Cameras for every frame of a clip that is to be made.

    Args:
        spec: a path as in :func:`read_track`, or a preset such as ``orbit_left:0.3`` (``presets.parse_moves``).
        frames: pixel frames of the clip.
        size: height and width of the clip.
        fit: how pictures of the pose file's size are brought to ``size``: as the conditioning image is.
        fps: of the clip, where the poses have times: they are interpolated. None: a pose of the file for each frame.
        start: the first pose that is taken.
        fov: degrees from left to right, for presets and tables without intrinsics.
        picture: height and width of the picture that these degrees are of, which ``fit`` brings to ``size``; None:
            ``size``.
        resample: spread all poses from ``start`` on over the clip, however many they are.

    Raises:
        InputError: as :func:`read_track` and ``preset_cameras``, or fewer poses than frames.
    """
    path = Path(spec)
    if not _names_a_file(path, str(spec)):
        if start:
            raise InputError(f"start={start}: a trajectory by name has no poses to leave out; give a file, or start=0")
        return fitted(preset_cameras(str(spec), frames, picture or size, fov=fov), size, fit)
    if frames < 1 or start < 0:
        raise InputError(f"frames={frames}, start={start} of a trajectory: expected at least 1 and 0")
    track = read_track(path, picture or size, fov=fov)
    if fps is not None and track.times is not None and not resample:
        track = at_rate(track, fps)
    needed = 1 if resample else frames
    if start + needed > len(track):
        after = f" from pose {start} on" if start else ""
        raise InputError(
            f"{path} has {len(track)} poses, but the clip has {frames} frames{after}: make a shorter clip, or spread "
            "the poses over it (resample_trajectory)"
        )
    if track.distorted:
        log.warning("%s names lens distortion: the rays are those of a camera without it", path)
    if resample:
        places = torch.arange(len(track) - start, dtype=torch.float64)
        wanted = torch.linspace(0, len(places) - 1, frames, dtype=torch.float64)
        return fitted(interpolate(track.cameras[start:], places, wanted), size, fit)
    return fitted(track.cameras[start : start + frames], size, fit)


def _names_a_file(path: Path, text: str) -> bool:
    """Whether a trajectory is meant as a path: it is there, or it looks like one; names of presets go before."""
    if not text.strip() or re.split(r"[:,+]", text.strip())[0].strip() in PRESETS:
        return False
    try:
        there = path.exists()
    except (OSError, ValueError) as error:  # No file system has such a name.
        raise InputError(f"trajectory {text[:60]!r} is neither a name nor a path") from error
    return there or "/" in text or path.suffix.lower() in (".json", ".csv", ".bin", ".txt")
