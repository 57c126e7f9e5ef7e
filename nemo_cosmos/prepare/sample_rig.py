"""Render clips of several cameras on a car that drives along a street, in the folders of the public Waymo conversion.

``videos/CAMERA/CLIP.mp4`` and ``metas/CAMERA/CLIP.txt``; ``cameras/CLIP.json`` has intrinsics and poses. Rigs other
than Waymo's have their ``rig.yaml``.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from nemo_cosmos.atomic import write_json, write_text
from nemo_cosmos.data.rig import MOST_CAMERAS, RIG_NAME, read_rig
from nemo_cosmos.data.video import video_writer
from nemo_cosmos.errors import InputError, require_range
from nemo_cosmos.prepare.sample_folder import claim_folder, require_size, split_folders
from nemo_cosmos.scenes.cameras import Pinhole, looking
from nemo_cosmos.scenes.render import render, trace
from nemo_cosmos.scenes.street import Street, draw_street
from nemo_cosmos.scenes.words import enumerated, with_article

VIEW = 50.0
"""Degrees that a camera sees from left to right, of Waymo's as well; neighbours are 45 apart and overlap."""
SPACING = 45.0
ROOF = (1.5, 0.0, 1.9)
"""Where the middle of the rig is on the car, in metres ahead, to the left and upwards."""
RADIUS = 0.15
"""Metres from there to each camera."""
WAYMO = {
    "pinhole_front": 0.0,
    "pinhole_front_left": 45.0,
    "pinhole_front_right": -45.0,
    "pinhole_side_left": 90.0,
    "pinhole_side_right": -90.0,
}
"""Degrees to the left that each camera of Waymo looks."""
SIDE = ("pinhole_side_left", "pinhole_side_right")
NAMED = 5
"""Things of a picture that its caption names, at most."""
NOTICED = 0.012
"""Share of a picture that a thing must cover to be named."""


@dataclass(frozen=True)
class RigDataSettings:
    """What to render.

    Attributes:
        clips: clips to train on.
        held_out: clips kept apart.
        size: (height, width) in pixels, both even.
        side_size: of Waymo's two side cameras, which have fewer rows; None: as the others.
        frames: frames per clip.
        fps: frame rate.
        cameras: None for Waymo's five, otherwise how many.
        supersample: rays per pixel in both directions.
        seed: the same seed gives the same files.
    """

    clips: int = 8
    held_out: int = 0
    size: tuple[int, int] = (128, 192)
    side_size: tuple[int, int] | None = None
    frames: int = 29
    fps: float = 10.0
    cameras: int | None = None
    supersample: int = 2
    seed: int = 0

    def __post_init__(self) -> None:
        require_size(self.size)
        if self.side_size is not None:
            require_size(self.side_size, "--side-size")
            if self.cameras is not None:
                raise InputError("--side-size is of Waymo's two side cameras; leave it out with --cameras")
        require_range("--clips", self.clips, 1, 1_000_000)
        require_range("--held-out", self.held_out, 0, 1_000_000)
        require_range("--frames", self.frames, 1, 10_000)
        require_range("--fps", self.fps, 0.01, 1000)
        require_range("--cameras", self.cameras, 1, MOST_CAMERAS)
        require_range("--supersample", self.supersample, 1, 8)
        require_range("--seed", self.seed, 0, (1 << 63) - 1)


@dataclass(frozen=True)
class RigCamera:
    """One camera of a rig: its folder, what it is, and its pose on the car (x ahead, y left, z up)."""

    folder: str
    camera: Pinhole
    mount: np.ndarray


def mounted_cameras(settings: RigDataSettings) -> list[RigCamera]:
    """The cameras of a rig, the front one first, then left and right in turns."""
    rig = []
    for folder, degrees in _directions(settings.cameras).items():
        size = settings.side_size if settings.side_size and folder in SIDE else settings.size
        angle = math.radians(degrees)
        away = np.array([math.cos(angle), math.sin(angle), 0.0]) * RADIUS
        rig.append(RigCamera(folder, Pinhole.of_view(size, VIEW), looking(np.array(ROOF) + away, angle)))
    return rig


def _directions(cameras: int | None) -> dict[str, float]:
    """Degrees to the left by folder; neighbours are :data:`SPACING` apart, or less where they go all the way round."""
    if cameras is None:
        return WAYMO
    spacing = min(SPACING, 360 / cameras)
    found = {}
    for number in range(cameras):
        turns = (number + 1) // 2 * spacing
        if number == 0:
            found["front"] = 0.0
        elif turns >= 180:
            found["rear"] = 180.0
        else:
            found[f"{'left' if number % 2 else 'right'}_{turns:03.0f}"] = turns if number % 2 else -turns
    return found


def render_rig_data(out: str | Path, settings: RigDataSettings) -> Iterator[Path]:
    """Write ``out``, or ``out/train`` and ``out/held_out``; yields the front video of each clip once all are there.

    Videos that an earlier call with the same settings wrote are kept.

    Raises:
        InputError: ``out`` holds clips of other settings, or other files.
    """
    out = Path(out)
    claim_folder(out, json.loads(json.dumps(asdict(settings))), "waymo")
    rig = mounted_cameras(settings)
    for split, folder in split_folders(out, settings.held_out):
        folder.mkdir(exist_ok=True)
        if settings.cameras is not None:
            _write_rig(folder / RIG_NAME, rig, settings)
        for number in range((settings.clips, settings.held_out)[split]):
            yield _write_clip(folder, rig, settings, (settings.seed, split, number))


def clip_name(seed: tuple[int, ...]) -> str:
    """A name as Waymo's clips have them: the drive, then first and last time in seconds and milliseconds."""
    random = np.random.default_rng((*seed, 1))
    start = int(random.integers(0, 2000)) * 10
    return f"{random.integers(10**17, 9 * 10**18)}_{start}_000_{start + 20}_000"


def _write_clip(folder: Path, rig: list[RigCamera], settings: RigDataSettings, seed: tuple[int, ...]) -> Path:
    name = clip_name(seed)
    videos = [folder / "videos" / view.folder / f"{name}.mp4" for view in rig]
    truth = folder / "cameras" / f"{name}.json"
    missing = [(view, video) for view, video in zip(rig, videos, strict=True) if not video.is_file()]
    if missing or not truth.is_file():
        street = draw_street(np.random.default_rng(seed), settings.frames, settings.fps)
        for view, video in missing:
            metas = folder / "metas" / view.folder
            metas.mkdir(parents=True, exist_ok=True)
            write_text(metas / f"{name}.txt", caption(street, view) + "\n")
            with video_writer(video, settings.fps, quality=12) as write:
                for pose, time in zip(street.poses, street.times, strict=True):
                    mounted = pose @ view.mount
                    write(render(street.scene, view.camera, mounted, time, supersample=settings.supersample)[None])
        truth.parent.mkdir(exist_ok=True)
        write_json(truth, _truth(street, rig, settings.fps), indent=None)
    return videos[0]


def caption(street: Street, view: RigCamera) -> str:
    """A sentence that names what a camera sees much of, the largest first."""
    small = Pinhole.of_view((32, round(32 * view.camera.width / view.camera.height)), VIEW)
    covered: dict[str, float] = {}
    labels = [surface.label for surface in street.scene.surfaces]
    last = len(street.times) - 1
    for number in sorted({0, last // 2, last}):
        hits = trace(street.scene, small, street.poses[number] @ view.mount, street.times[number])
        counts = np.bincount(hits.surface[hits.surface >= 0], minlength=len(labels)) / hits.surface.size
        seen: dict[str, float] = {}
        for index in np.flatnonzero(counts):
            seen[labels[index]] = seen.get(labels[index], 0.0) + float(counts[index])
        covered = {name: max(covered.get(name, 0.0), seen.get(name, 0.0)) for name in {*covered, *seen}}
    named = [name for name, share in covered.items() if name and share > NOTICED]
    named.sort(key=lambda name: (-covered[name], name))
    things = [with_article(name) for name in named[:NAMED]]
    return f"A street seen from a moving car{', with ' + enumerated(things) if things else ''}."


def _truth(street: Street, rig: list[RigCamera], fps: float) -> dict[str, Any]:
    """Intrinsics in pixels, and camera-to-world poses with the axes of OpenCV, of every camera and frame."""
    cameras = {view.folder: {**asdict(view.camera), "poses": (street.poses @ view.mount).tolist()} for view in rig}
    return {"fps": fps, "cameras": cameras}


def _write_rig(path: Path, rig: list[RigCamera], settings: RigDataSettings) -> None:
    """The rig file; view ids count from the front camera."""
    cameras = {
        view.folder: {
            "view_id": number,
            "name": view.folder.replace("_", " "),
            "prefix": "Filmed by a camera on a moving car. " + _looks(view.folder),
        }
        for number, view in enumerate(rig)
    }
    values = {
        "cameras": cameras,
        "front": "front",
        "captions": "front",
        "frames": settings.frames,
        "fps": settings.fps,
        "size": list(settings.size),
    }
    write_text(path, yaml.safe_dump(values, sort_keys=False))
    read_rig(path)


def _looks(folder: str) -> str:
    """A sentence about where a camera looks."""
    side, _, degrees = folder.partition("_")
    return f"It looks {int(degrees)} degrees to the {side}." if degrees else f"It looks to the {side}."
