"""Render ways of a camera through textured rooms, packed as the scenes of DL3DV: pictures and ``transforms.json``.

``BATCH/HASH.zip`` each, and the captions of all, pickled and as JSON.
"""

from __future__ import annotations

import hashlib
import io
import json
import pickle
import zipfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from nemo_cosmos.atomic import finished_file, finished_folder, write_bytes, write_json
from nemo_cosmos.choices import ScenePacking
from nemo_cosmos.errors import require_range
from nemo_cosmos.prepare.sample_folder import claim_folder, require_size, split_folders
from nemo_cosmos.scenes.cameras import OPENGL_AXES, Pinhole
from nemo_cosmos.scenes.render import render
from nemo_cosmos.scenes.room import Room, draw_room
from nemo_cosmos.scenes.trajectories import WAYS, draw_trajectory

VIEW = 70.0
"""Degrees that the camera sees from left to right."""
BATCH = 1000
"""Scenes in a folder."""
CAPTIONS, TRAJECTORIES = "captions", "trajectories.json"


@dataclass(frozen=True)
class RoomDataSettings:
    """What to render.

    Attributes:
        scenes: rooms.
        trajectories_per_scene: ways through each, every one packed as a scene of its own.
        held_out: further ways through each room, kept apart.
        size: (height, width) of the pictures in pixels.
        frames: pictures of a way.
        image_scale: ``transforms.json`` speaks of pictures this many times as large, as with DL3DV's smaller sets.
        packing: ``zip`` with a folder inside, ``flat`` zip without, or ``folder``: unpacked.
        supersample: rays per pixel in both directions.
        seed: the same seed gives the same files.
    """

    scenes: int = 4
    trajectories_per_scene: int = 1
    held_out: int = 0
    size: tuple[int, int] = (144, 256)
    frames: int = 60
    image_scale: int = 1
    packing: ScenePacking = "zip"
    supersample: int = 2
    seed: int = 0

    def __post_init__(self) -> None:
        require_size(self.size, even=False)
        require_range("--scenes", self.scenes, 1, 100_000)
        require_range("--trajectories-per-scene", self.trajectories_per_scene, 1, 10_000)
        require_range("--held-out", self.held_out, 0, 10_000)
        require_range("--frames", self.frames, 2, 10_000)
        require_range("--image-scale", self.image_scale, 1, 16)
        require_range("--supersample", self.supersample, 1, 8)
        require_range("--seed", self.seed, 0, (1 << 63) - 1)

    @property
    def camera(self) -> Pinhole:
        """The camera of the pictures as they are."""
        return Pinhole.of_view(self.size, VIEW)


@dataclass(frozen=True)
class _Way:
    """One way through a room."""

    name: str
    batch: str
    kind: str
    room_number: int
    room: Room
    poses: np.ndarray


def render_room_data(out: str | Path, settings: RoomDataSettings) -> Iterator[Path]:
    """Write ``out``, or ``out/train`` and ``out/held_out``; yields each scene's file or folder once it is there.

    Scenes that an earlier call with the same settings wrote are kept.

    Raises:
        InputError: ``out`` holds clips of other settings, or other files.
    """
    out = Path(out)
    claim_folder(out, json.loads(json.dumps(asdict(settings))), "dl3dv")
    rooms = [draw_room(np.random.default_rng((settings.seed, number))) for number in range(settings.scenes)]
    for split, folder in split_folders(out, settings.held_out):
        ways = [_draw_way(rooms, settings, split, number) for number in range(_count(settings, split))]
        folder.mkdir(exist_ok=True)
        _write_lists(folder, ways)
        for way in ways:
            yield _write_way(folder, way, settings)


def _count(settings: RoomDataSettings, split: int) -> int:
    return settings.scenes * (settings.trajectories_per_scene, settings.held_out)[split]


def _draw_way(rooms: list[Room], settings: RoomDataSettings, split: int, number: int) -> _Way:
    each = (settings.trajectories_per_scene, settings.held_out)[split]
    kinds = list(WAYS)
    # The kinds take turns over the ways, and begin elsewhere in what is held out.
    kind = kinds[(number + 4 * split) % len(kinds)]
    room = rooms[number // each]
    random = np.random.default_rng((settings.seed, split, number, 2))
    poses = draw_trajectory(random, room, kind, settings.frames)
    name = hashlib.sha256(f"room {settings.seed} {split} {number}".encode()).hexdigest()
    return _Way(name, f"{1 + number // BATCH}K", kind, number // each, room, poses)


def _write_lists(folder: Path, ways: list[_Way]) -> None:
    """Captions by scene and chunk, and what is known of each way besides."""
    captions = {f"{way.name}/0": way.room.caption for way in ways}
    write_json(folder / f"{CAPTIONS}.json", captions)
    write_bytes(folder / f"{CAPTIONS}.pickle", pickle.dumps(captions, protocol=4))
    write_json(folder / TRAJECTORIES, {way.name: {"kind": way.kind, "room": way.room_number} for way in ways})


def _write_way(folder: Path, way: _Way, settings: RoomDataSettings) -> Path:
    target = folder / way.batch / (way.name if settings.packing == "folder" else f"{way.name}.zip")
    if target.exists():
        return target
    target.parent.mkdir(exist_ok=True)
    if settings.packing == "folder":
        with finished_folder(target) as temporary:
            for name, content in _files(way, settings):
                (temporary / name).parent.mkdir(exist_ok=True)
                (temporary / name).write_bytes(content)
        return target
    inside = f"{way.name}/" if settings.packing == "zip" else ""
    with finished_file(target) as temporary, zipfile.ZipFile(temporary, "w") as packed:
        for name, content in _files(way, settings):
            # Without a time, so that the same seed gives the same bytes; PNG is compressed already.
            packed.writestr(zipfile.ZipInfo(inside + name), content)
    return target


def _files(way: _Way, settings: RoomDataSettings) -> Iterator[tuple[str, bytes]]:
    """Name below the scene's folder and content of all files."""
    images = "images" if settings.image_scale == 1 else f"images_{settings.image_scale}"
    for number, pose in enumerate(way.poses):
        buffer = io.BytesIO()
        picture = render(way.room.scene, settings.camera, pose, supersample=settings.supersample)
        Image.fromarray(picture).save(buffer, "PNG")
        yield f"{images}/{_frame_name(number)}", buffer.getvalue()
    yield "transforms.json", (json.dumps(_transforms(way, settings), indent=1) + "\n").encode()


def _frame_name(number: int) -> str:
    return f"frame_{number + 1:05d}.png"


def _transforms(way: _Way, settings: RoomDataSettings) -> dict[str, Any]:
    """As Nerfstudio writes it: camera-to-world poses with the axes of OpenGL, lengths in pixels of the full size."""
    camera = settings.camera.scaled(settings.image_scale)
    frames = [
        {
            "file_path": f"images/{_frame_name(number)}",
            "transform_matrix": (pose @ OPENGL_AXES).tolist(),
            "colmap_im_id": number + 1,
        }
        for number, pose in enumerate(way.poses)
    ]
    lens = {"k1": 0.0, "k2": 0.0, "p1": 0.0, "p2": 0.0, "camera_model": "OPENCV"}
    size = {"w": camera.width, "h": camera.height}
    focal = {"fl_x": camera.fx, "fl_y": camera.fy, "cx": camera.cx, "cy": camera.cy}
    return {**size, **focal, **lens, "frames": frames}
