"""Rigs of cameras: which folders of a dataset are the views of a clip, in which order, under which ids.

A rig is a YAML file::

    cameras:                # folder: view id, in the order of the views in a sample
      left: 5
      front: {view_id: 0, name: front wide, prefix: "Looks ahead.", frame_repeat: 0}
    front: front            # whose caption is the clip's; default: the first camera
    captions: front         # or all: every camera has its own
    frames: 29              # what is taken of a clip where nothing else is said: these four may be left out
    fps: 10
    size: [704, 1280]
    fit: stretch

Those that come with the package are called by name, see :data:`SHIPPED`.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, cast

from nemo_cosmos.choices import Captions, Fit
from nemo_cosmos.data.listing import require_path
from nemo_cosmos.errors import InputError, require_file, require_text
from nemo_cosmos.typed import Limits, check_fields, from_json, plain_name, read_yaml

MOST_CAMERAS = 12
LARGEST_ID = MOST_CAMERAS - 1
LONGEST_TEXT = 1000
RIG_NAME = "rig.yaml"
"""A dataset's own rig lies in its folder under this name."""
SHIPPED_FOLDER = Path(__file__).with_name("rigs")
SHIPPED = tuple(sorted(file.stem for file in SHIPPED_FOLDER.glob("*.yaml")))
"""Rigs of the package: Waymo's five cameras, the seven of Predict2's AV rig, the six of Predict1's."""


@dataclass(frozen=True)
class Camera:
    """One camera of a rig.

    Attributes:
        folder: its name below ``videos``, ``metas`` and ``t5_xxl``.
        view_id: the number by which networks know it.
        name: for people; the folder's where the rig says none.
        prefix: sentences about where it looks, None where the rig says none.
        frame_repeat: repetition count that Predict1's networks are told, None where the rig says none.
    """

    folder: str
    view_id: int
    name: str = ""
    prefix: str | None = None
    frame_repeat: float | None = None


@dataclass(frozen=True)
class Rig:
    """Cameras in the order of the views in a sample.

    Attributes:
        source: where it was read, for messages.
        cameras: 1 to :data:`MOST_CAMERAS`.
        front: folder of the camera whose caption stands for the clip.
        captions: "front": the front camera's alone; "all": every camera's.
        frames, fps, size, fit: what is taken of a clip where nothing else is said; None: as of other clips.
    """

    source: str
    cameras: tuple[Camera, ...]
    front: str
    captions: Captions = "front"
    frames: int | None = None
    fps: float | None = None
    size: tuple[int, int] | None = None
    fit: Fit | None = None

    @property
    def folders(self) -> tuple[str, ...]:
        """Folder of each camera."""
        return tuple(camera.folder for camera in self.cameras)

    @property
    def view_ids(self) -> tuple[int, ...]:
        """Id of each camera."""
        return tuple(camera.view_id for camera in self.cameras)

    @property
    def names(self) -> tuple[str, ...]:
        """Name of each camera, for people."""
        return tuple(camera.name for camera in self.cameras)

    def described(self) -> list[str]:
        """What of the cameras shapes a sample, in their order."""
        return [
            f"{camera.folder}={camera.view_id}"
            + (f" repeat {camera.frame_repeat:g}" if camera.frame_repeat is not None else "")
            for camera in self.cameras
        ]

    def __str__(self) -> str:
        return f"{', '.join(f'{camera.folder} ({camera.view_id})' for camera in self.cameras)}"


@dataclass
class _File:
    """A rig file as written."""

    cameras: dict[str, Any]
    front: str | None = None
    captions: str = "front"
    frames: int | None = None
    fps: float | None = None
    size: list[int] | None = None
    fit: str | None = None


@dataclass
class _CameraEntry:
    """A camera that is written out in full."""

    view_id: int
    name: str | None = None
    prefix: str | None = None
    frame_repeat: float | None = None


_LIMITS: Limits = {"frames": (1, 1 << 14), "fps": (0.01, 1000), "size": (1, 1 << 14)}
_CAMERA_LIMITS: Limits = {"frame_repeat": (0, 1e6)}


def read_rig(rig: str | Path) -> Rig:
    """Read a rig: a YAML file, or the name of one in :data:`SHIPPED`.

    Raises:
        InputError: no such file, an unknown key, no or more than :data:`MOST_CAMERAS` cameras, a view id that is
            missing, out of range or given twice, or a front camera that is not among them.
    """
    file = SHIPPED_FOLDER / f"{rig}.yaml" if str(rig) in SHIPPED and not Path(rig).is_file() else Path(rig)
    if not file.exists() and file.suffix == "":
        raise InputError(f"rig {str(rig)!r}: no such file, nor one of {', '.join(SHIPPED)}; name a YAML file")
    require_file(file)
    return parse_rig(read_yaml(file), str(file))


def find_rig(dataset: Path) -> Rig | None:
    """The rig of a raw dataset: its own ``rig.yaml``, or Waymo's where at least two of its cameras are in ``videos``.

    Raises:
        InputError: its own is none.
    """
    if (dataset / RIG_NAME).is_file():
        return read_rig(dataset / RIG_NAME)
    waymo = read_rig("waymo")
    found = [folder for folder in waymo.folders if (dataset / "videos" / folder).is_dir()]
    return waymo if len(found) > 1 else None


def described_rig(cameras: Sequence[str], front: str | None, where: str) -> Rig:
    """The rig whose :meth:`Rig.described` is ``cameras``: one of the package, with its names, where that is so.

    Raises:
        InputError: that describes no cameras; it begins with ``where``.
    """
    for shipped in map(read_rig, SHIPPED):
        if shipped.described() == list(cameras) and front in (None, shipped.front):
            return shipped
    parts = [re.fullmatch(r"(.+)=(\d{1,4})(?: repeat (\S+))?", str(camera)) for camera in cameras]
    if not parts or None in parts:
        raise InputError(f"{where}: {str(cameras)[:80]} describes no cameras")
    found = {m[1]: {"view_id": int(m[2])} | ({"frame_repeat": float(m[3])} if m[3] else {}) for m in parts if m}
    return parse_rig({"cameras": found} | ({} if front is None else {"front": front}), where)


def parse_rig(values: Any, where: str) -> Rig:
    """The rig that the plain values of a YAML file describe; InputError as :func:`read_rig`, beginning with
    ``where``."""
    if not isinstance(values, dict):
        raise InputError(f"{where}: expected a mapping with 'cameras', found {type(values).__name__}")
    if unknown := [name for name in values if name not in {item.name for item in fields(_File)}]:
        known = ", ".join(item.name for item in fields(_File))
        raise InputError(f"{where}: unknown {_listed('key', unknown)}; expected {known}")
    if not isinstance(values.get("cameras"), dict):
        raise InputError(f"{where}: 'cameras' is missing or no mapping; expected FOLDER: VIEW_ID lines under it")
    given = from_json(_File, values, where)
    cameras = _cameras(given.cameras, where)
    front = cameras[0].folder if given.front is None else given.front
    if front not in given.cameras:
        raise InputError(f"{where}: front={front[:80]!r} is none of its cameras: {', '.join(given.cameras)}")
    size = None if given.size is None else cast(tuple[int, int], tuple(given.size))
    captions, fit = cast(Captions, given.captions), cast("Fit | None", given.fit)
    rig = Rig(where, cameras, front, captions, given.frames, given.fps, size, fit)
    check_fields(rig, _LIMITS, f"{where}: ")
    return rig


def _cameras(entries: dict[Any, Any], where: str) -> tuple[Camera, ...]:
    if not 1 <= len(entries) <= MOST_CAMERAS:
        raise InputError(f"{where}: {len(entries)} cameras, expected 1 to {MOST_CAMERAS}")
    if odd := [folder for folder in entries if not isinstance(folder, str)]:
        raise InputError(f"{where}: cameras: {_listed('folder', odd)}: names of folders are text, quote them")
    cameras = tuple(_camera(folder, entry, where) for folder, entry in entries.items())
    outside = [f"{camera.folder}: {camera.view_id}" for camera in cameras if not 0 <= camera.view_id <= LARGEST_ID]
    if outside:
        raise InputError(f"{where}: {_listed('view id', outside)}: expected 0 to {LARGEST_ID}")
    counts = Counter(camera.view_id for camera in cameras)
    twice = [f"{camera.folder}: {camera.view_id}" for camera in cameras if counts[camera.view_id] > 1]
    if twice:
        raise InputError(f"{where}: cameras share a view id ({', '.join(twice)}); each needs its own")
    told = [camera.folder for camera in cameras if camera.frame_repeat is None]
    if 0 < len(told) < len(cameras):
        raise InputError(f"{where}: {', '.join(told)} have no frame_repeat while other cameras do; give all or none")
    return cameras


def _camera(folder: str, entry: Any, where: str) -> Camera:
    require_path(plain_name(folder, f"{where}: cameras"), f"{where}: cameras: the folder")
    place = f"{where}: cameras: {folder}"
    if type(entry) is int:
        return Camera(folder, entry, folder)
    if not isinstance(entry, dict):
        raise InputError(f"{place}: {str(entry)[:80]!r}: expected a view id, or a mapping with view_id")
    if type(entry.get("view_id", 0)) is int and entry.get("view_id", 0) < 0:
        raise InputError(f"{place}: view_id={entry['view_id']}: expected 0 to {LARGEST_ID}")
    given = from_json(_CameraEntry, entry, place)
    check_fields(given, _CAMERA_LIMITS, f"{place}: ")
    for name in ("name", "prefix"):
        text = getattr(given, name)
        require_text(text or "", f"{place}: {name}")
        if text is not None and not 1 <= len(text.strip()) <= LONGEST_TEXT:
            raise InputError(f"{place}: {name}: expected 1 to {LONGEST_TEXT} characters")
    return Camera(folder, given.view_id, given.name or folder, given.prefix, given.frame_repeat)


def _listed(what: str, values: Sequence[Any]) -> str:
    return what + "s" * (len(values) > 1) + " " + ", ".join(str(value)[:80] for value in values[:MOST_CAMERAS])
