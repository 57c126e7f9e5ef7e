"""Scenes with a pose for every picture: zips and folders of DL3DV, folders of nerfstudio and of COLMAP."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

from nemo_cosmos.data.scene_poses import poses_file
from nemo_cosmos.data.scene_windows import SCENE_FPS, SCENE_FRAMES, SceneClip, draw
from nemo_cosmos.data.scenes import Scene, find_scenes, is_colmap_scene, is_transforms_scene
from nemo_cosmos.data.shards import safe_key
from nemo_cosmos.errors import InputError, require_text
from nemo_cosmos.prepare.sources.base import Found, Sampling, SourceOptions
from nemo_cosmos.prepare.sources.scene_captions import caption_of, read_scene_captions

SAMPLING = Sampling(frames=SCENE_FRAMES, fit="pad", fps=SCENE_FPS)

SHOWN = 5
LOOKED_AT = 50
"""Names in a folder by which a dataset is told."""
SCENE_KINDS = ("dl3dv", "nerfstudio", "colmap")


@dataclass(frozen=True)
class SceneSource:
    """One layout of scenes.

    Attributes:
        kind: as ``prepare --layout`` takes it.
        zips: zip files are scenes, too.
        colmap: poses are a model of COLMAP, not a ``transforms.json``.
    """

    kind: str
    zips: bool = False
    colmap: bool = False
    frames: int | None = None
    has_rig: bool = False

    def reads(self, path: Path) -> bool:
        """A scene, or a folder with one right below it or below a folder of it."""
        if path.is_file():
            return self.zips and path.suffix.lower() == ".zip"
        if not path.is_dir() or (path / "videos").is_dir():
            return False
        near = [path, *_folders(path)]
        near += [inner for folder in near[1:] for inner in _folders(folder)]
        return any(map(is_colmap_scene if self.colmap else is_transforms_scene, near)) or (
            self.zips and any(any(folder.glob("*.zip")) for folder in near)
        )

    def open(self, path: Path, options: SourceOptions) -> Found:
        """A clip for each chunk, sorted by the scenes' names."""
        if options.use_embeddings:
            raise InputError(f"{path}: captions of {self.kind} scenes are embedded here: name a text encoder")
        asked = options.scenes
        limit = None if asked.max_unpacked_gb is None else int(asked.max_unpacked_gb * 2**30)
        scenes = find_scenes(path, colmap=self.colmap, zips=self.zips, max_unpacked=limit, apart=asked.apart)
        if not scenes:
            expected = {"colmap": "folders with sparse/0 and images/"}.get(self.kind, "transforms.json and images/")
            raise InputError(f"{path} holds no {self.kind} scene: expected {expected}{' or .zip files' * self.zips}")
        scenes = choose(scenes, asked.count, asked.seed)
        clips = [self._clip(path, scene, chunk, options) for scene in scenes for chunk in range(asked.chunks)]
        return Found(_with_captions(clips, options), SAMPLING)

    def not_read(self, path: Path) -> str:
        return ""

    def _clip(self, root: Path, scene: Scene, chunk: int, options: SourceOptions) -> SceneClip:
        videos = options.scenes.videos
        return SceneClip(
            key=safe_key(f"{scene.name}-c{chunk}"),
            video=scene.path if scene.packed else poses_file(scene),
            name=scene.path.relative_to(root).as_posix() if scene.path != root else scene.name,
            title=scene.name,
            caption_place=f"{scene.name}/{chunk}",
            poses_file=None if scene.packed else poses_file(scene),
            scene=scene,
            chunk=chunk,
            seed=options.scenes.seed,
            video_file=None if videos is None else videos / f"{scene.name}.mp4",
        )


def _folders(path: Path) -> list[Path]:
    """Some of the folders in a folder, which may hold very many files."""
    return [Path(entry) for entry in islice(os.scandir(path), LOOKED_AT) if entry.is_dir()]


def choose(scenes: list[Scene], count: int, seed: int) -> list[Scene]:
    """``count`` of the scenes, by the seed and their names; all of them where it is -1. Order as given."""
    if count < 0:
        return scenes
    drawn = sorted(scenes, key=lambda scene: (draw(1 << 64, seed, "scene", scene.name), scene.name))[:count]
    return [scene for scene in scenes if scene in drawn]


def _with_captions(clips: list[SceneClip], options: SourceOptions) -> list[SceneClip]:
    asked = options.scenes
    captions = {} if asked.captions is None else read_scene_captions(asked.captions)
    if options.default_caption is not None:
        require_text(options.default_caption, "the default caption")
    found = []
    for clip in clips:
        caption = caption_of(captions, clip.scene.name, clip.chunk)
        found.append(replace(clip, caption=options.default_caption if caption is None else caption))
    missing = sorted({clip.scene.name for clip in found if clip.caption is None})
    if missing and options.captions_needed:
        names = ", ".join(missing[:SHOWN]) + (", ..." if len(missing) > SHOWN else "")
        where = "no file of captions was named" if asked.captions is None else f"{asked.captions} has none"
        raise InputError(
            f"{len(missing)} scenes have no caption ({where}): {names}; expected the key {missing[0]}/0 in the "
            "dictionary (--path_to_caption_dict; prepare: --scene-captions), or a caption for those without "
            "(--default_caption; prepare: --default-caption)"
        )
    return found


DL3DV = SceneSource("dl3dv", zips=True)
NERFSTUDIO = SceneSource("nerfstudio")
COLMAP = SceneSource("colmap", colmap=True)


def scene_layout(path: Path) -> str:
    """The layout of a folder of scenes by what lies there; DL3DV's, which says what is missing, where none fits."""
    return next((source.kind for source in (DL3DV, NERFSTUDIO, COLMAP) if source.reads(path)), DL3DV.kind)
