"""Write clips of many kinds for training a small model, by several processes, with a list of what they are made of."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from nemo_cosmos.atomic import write_json, write_text
from nemo_cosmos.data.manifest import read_json
from nemo_cosmos.data.video import write_mp4
from nemo_cosmos.data.workers import close_readers, reader_options
from nemo_cosmos.errors import InputError, require_range
from nemo_cosmos.prepare.sample_data import LARGEST_CLIP, draw_scene, render_scene
from nemo_cosmos.prepare.sample_folder import SPLITS, claim_folder, require_size
from nemo_cosmos.scenes.photographs import PHOTOGRAPHS, Photograph, require_photographs
from nemo_cosmos.scenes.worlds.arm import render_arm
from nemo_cosmos.scenes.worlds.floating import render_floating
from nemo_cosmos.scenes.worlds.moving_photo import render_moving_photo
from nemo_cosmos.scenes.worlds.patterns import render_pattern
from nemo_cosmos.scenes.worlds.pictures import Library
from nemo_cosmos.scenes.worlds.road import render_road
from nemo_cosmos.scenes.worlds.solid import render_room, render_street
from nemo_cosmos.scenes.worlds.stage import Clip, Render, Stage

LIST_NAME = "training_list.json"
QUALITY = 11
"""Constant rate factor of the files: cleaner than what is usually called lossless to the eye."""
RATES = (3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 12.0, 15.0, 20.0, 24.0, 25.0, 30.0)
"""Frames per second, of which each clip has one."""
ARM_RATES = (3.0, 3.0, 3.0, 5.0, 5.0, 8.0, 10.0, 15.0)
"""Those of arms, which are slow, and are filmed at few frames a second."""


def render_shapes(stage: Stage) -> Clip:
    """A shape over a floor, as plain ``sample-data`` renders it."""
    scene = draw_scene(stage.random, int(stage.random.integers(1 << 16)))
    return Clip(render_scene(scene, stage.frames, stage.size), scene.caption)


@dataclass(frozen=True)
class Kind:
    """A kind of clip.

    Attributes:
        render: draws and renders one.
        weight: how many of 100 clips are of this kind.
        rates: frames per second of which one is drawn.
        of_photographs: whether there is none of it without photographs.
    """

    render: Render
    weight: float
    rates: Sequence[float] = RATES
    of_photographs: bool = False


KINDS: dict[str, Kind] = {
    "moving_photo": Kind(render_moving_photo, 23, of_photographs=True),
    "floating": Kind(render_floating, 20),
    "arm": Kind(render_arm, 24, ARM_RATES),
    "shapes": Kind(render_shapes, 13, (8.0,)),
    "road": Kind(render_road, 6),
    "street": Kind(render_street, 4, (5.0, 8.0, 10.0, 15.0, 24.0, 30.0)),
    "room": Kind(render_room, 4),
    "pattern": Kind(render_pattern, 6),
}
"""All kinds by the names that the list of clips has for them."""


@dataclass(frozen=True)
class WorldsSettings:
    """What to render.

    Attributes:
        clips: clips to train on.
        held_out: clips kept apart.
        size: (height, width) in pixels, both even.
        frames: frames per clip, at least 2.
        seed: the same seed gives the same files.
        without_photos: only clips that need no photographs.
    """

    clips: int = 64
    held_out: int = 8
    size: tuple[int, int] = (96, 128)
    frames: int = 17
    seed: int = 0
    without_photos: bool = False

    def __post_init__(self) -> None:
        require_size(self.size)
        require_range("--clips", self.clips, 1, 1_000_000)
        require_range("--held-out", self.held_out, 0, 1_000_000)
        require_range("--frames", self.frames, 2, 10_000)
        require_range("--seed", self.seed, 0, (1 << 63) - 1)
        # Several such arrays in fp32 are held at a time.
        if 3 * self.frames * self.size[0] * self.size[1] > LARGEST_CLIP // 64:
            raise InputError(
                f"--frames {self.frames} of --size {self.size[0]}x{self.size[1]}: expected a clip of at most "
                f"{LARGEST_CLIP >> 26} MiB; render fewer or smaller frames"
            )


class _Clips(Dataset["Path | Exception"]):
    """Each item renders a clip, unless it is there already, and is the path of its video, or why there is none."""

    def __init__(self, out: Path, settings: WorldsSettings, photographs: Sequence[Photograph]) -> None:
        self.out, self.settings, self.photographs = out, settings, photographs
        self.library: Library | None = None

    def __len__(self) -> int:
        return self.settings.clips + self.settings.held_out

    def __getitem__(self, index: int) -> Path | Exception:
        split, number = _place(self.settings, index)
        video = self.out / SPLITS[split] / "videos" / f"{SPLITS[split]}_{number:05d}.mp4"
        try:
            if not all(file.is_file() for file in (video, _caption(video), _record(video))):
                self.library = self.library or Library(self.photographs)
                _write_clip(video, self.settings, self.library, (self.settings.seed, split, number))
        except (InputError, OSError) as error:
            return error
        return video


def _place(settings: WorldsSettings, index: int) -> tuple[int, int]:
    """Number of the split, and of the clip in it."""
    return (0, index) if index < settings.clips else (1, index - settings.clips)


def _caption(video: Path) -> Path:
    return video.parents[1] / "metas" / f"{video.stem}.txt"


def _record(video: Path) -> Path:
    return video.parents[1] / "made_from" / f"{video.stem}.json"


def render_worlds(
    out: str | Path, settings: WorldsSettings, *, workers: int = 0, photographs: Sequence[Photograph] = PHOTOGRAPHS
) -> Iterator[Path]:
    """Write ``out/{train,held_out}/{videos,metas,made_from}`` and the list; yields each clip's path once it is there.

    Clips that an earlier call with the same settings wrote are kept, and any number of workers writes the same files.

    Args:
        workers: processes that render; 0 or 1: this one alone.
        photographs: what to use; all must be there, unless the settings go without.

    Raises:
        InputError: ``out`` holds clips of other settings, or other files; or a photograph is missing.
    """
    out = Path(out)
    photographs = () if settings.without_photos else tuple(photographs)
    require_photographs(photographs)
    claim_folder(out, {**asdict(settings), "size": list(settings.size)}, "worlds")
    for split in SPLITS:
        for folder in ("videos", "metas", "made_from"):
            (out / split / folder).mkdir(parents=True, exist_ok=True)
    videos = []
    for video in _rendered(_Clips(out, settings, photographs), workers):
        if isinstance(video, Exception):
            raise video
        videos.append(video)
        yield video
    _write_list(out, settings, photographs, videos)


def _rendered(clips: _Clips, workers: int) -> Iterator[Path | Exception]:
    threads = torch.get_num_threads()
    if workers <= 1:
        torch.set_num_threads(1)
        try:
            for index in range(len(clips)):
                yield clips[index]
        finally:
            torch.set_num_threads(threads)
        return
    loader = DataLoader(clips, batch_size=None, **reader_options(min(workers, len(clips))))
    try:
        yield from loader
    finally:
        close_readers(loader)


def draw_clip(
    settings: WorldsSettings, library: Library, seed: tuple[int, ...], kind: str | None = None
) -> tuple[Clip, str, Stage]:
    """A clip, its kind, and the stage that it was made on.

    Args:
        seed: the same numbers give the same clip.
        kind: one of :data:`KINDS`; None: drawn by their weights.
    """
    random = np.random.default_rng(seed)
    names = [name for name, one in KINDS.items() if library.photographs or not one.of_photographs]
    weights = np.array([KINDS[name].weight for name in names])
    drawn = str(random.choice(names, p=weights / weights.sum()))
    kind = kind or drawn
    fps = float(random.choice(KINDS[kind].rates))
    stage = Stage(random, library, settings.size, settings.frames, fps)
    return KINDS[kind].render(stage), kind, stage


def _write_clip(video: Path, settings: WorldsSettings, library: Library, seed: tuple[int, ...]) -> None:
    clip, kind, stage = draw_clip(settings, library, seed)
    write_text(_caption(video), clip.caption + "\n")
    write_json(_record(video), {"kind": kind, "made_from": sorted(stage.used)}, indent=None)
    write_mp4(video, clip.frames, stage.fps, quality=QUALITY)


def _write_list(
    out: Path, settings: WorldsSettings, photographs: Sequence[Photograph], videos: Sequence[Path]
) -> None:
    """Every clip and photograph, one a line."""
    shots = [{"name": photograph.name, **_listed(photograph)} for photograph in photographs]
    clips = []
    for video in videos:
        digest = hashlib.sha256(video.read_bytes()).hexdigest()
        clips.append(
            {"name": video.stem, "split": video.parents[1].name, "sha256": digest, **read_json(_record(video))}
        )
    head = {"made_by": f"nemo-cosmos sample-data worlds {_flags(settings)}", "settings": asdict(settings)}
    lines = [f'"{key}": {json.dumps(value)}' for key, value in head.items()]
    for key, rows in (("photographs", shots), ("clips", clips)):
        lines.append(f'"{key}": [\n' + ",\n".join(json.dumps(row) for row in rows) + "\n]")
    write_text(out / LIST_NAME, "{\n" + ",\n".join(lines) + "\n}\n")


def _listed(photograph: Photograph) -> dict[str, Any]:
    return {key: getattr(photograph, key) for key in ("package", "file", "licence", "sha256")}


def _flags(settings: WorldsSettings) -> str:
    height, width = settings.size
    words = f"OUT --clips {settings.clips} --held-out {settings.held_out} --size {height}x{width}"
    words += f" --frames {settings.frames} --seed {settings.seed}"
    return words + (" --without-photos" if settings.without_photos else "")


def usable_cores() -> int:
    """Processor cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
