"""Clips of several cameras: ``videos/CAMERA/NAME.mp4``, ``metas/CAMERA/NAME.txt``, ``t5_xxl/CAMERA/NAME.pickle``.

The cameras are those of a rig (``data.rig``), in its order. A clip is what every camera has under one NAME.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePath

from nemo_cosmos.data.clips import Clip, View
from nemo_cosmos.data.embeddings import EMBEDDING_SUFFIXES, EMBEDDINGS_FOLDER, stale_embeddings
from nemo_cosmos.data.listing import VIDEO_SUFFIXES, is_video_name, unique_names, walk_files
from nemo_cosmos.data.manifest import one_rate
from nemo_cosmos.data.rig import Camera, Rig
from nemo_cosmos.data.shards import safe_key
from nemo_cosmos.data.video import VideoInfo, probe
from nemo_cosmos.errors import InputError

VIDEOS_FOLDER, CAPTIONS_FOLDER = "videos", "metas"
VARIABLE_TOLERANCE = 0.05
"""Share by which mean rates may differ where frames come as they like, and are compared by their times."""
SHOWN = 12
"""Problems that an error lists."""


@dataclass(frozen=True)
class Problem:
    """What is wrong with a clip; ``clip`` is empty for what concerns the whole folder."""

    clip: str
    what: str

    def __str__(self) -> str:
        return f"{self.clip}: {self.what}" if self.clip else self.what


@dataclass
class RigFolder:
    """The clips of a rig's folder.

    Attributes:
        clips: those that every camera has, sorted by key, with whatever text there is for each view.
        problems: cameras and files that are missing, not of the rig, or there twice.
        others: folders of videos that are no camera of the rig.
        names: of all clips that some camera has.
    """

    clips: list[Clip] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    others: list[str] = field(default_factory=list)
    names: list[str] = field(default_factory=list)


def list_views(root: Path, rig: Rig, *, allow_others: bool = False) -> RigFolder:
    """Find the clips of a folder.

    Args:
        root: with ``videos``.
        rig: its cameras.
        allow_others: folders of other cameras are no problem.

    Raises:
        InputError: no ``videos`` folder, or no camera of the rig in it.
    """
    videos = root / VIDEOS_FOLDER
    if not videos.is_dir():
        found = "is neither a folder nor a list" if not root.exists() else f"has no folder {VIDEOS_FOLDER}"
        raise InputError(f"{root} {found}: expected {VIDEOS_FOLDER}/CAMERA/NAME.mp4 of the cameras {rig}")
    folder = RigFolder(others=_other_cameras(videos, rig))
    if not any((videos / name).is_dir() for name in rig.folders):
        others = f"; found {', '.join(folder.others[:SHOWN])}" if folder.others else ""
        raise InputError(f"{videos} holds none of the cameras of {rig.source}: {', '.join(rig.folders)}{others}")
    if folder.others and not allow_others:
        names = ", ".join(folder.others[:SHOWN])
        folder.problems.append(
            Problem("", f"{names} of {videos} are no cameras of {rig.source}: name a rig that has them, or give --rig")
        )
    files: dict[str, dict[PurePath, Path]] = {}
    for name in rig.folders:
        files[name] = {}
        if not (videos / name).is_dir():
            folder.problems.append(Problem("", f"there is no folder {videos / name}"))
            continue
        for file in walk_files(videos / name):
            if is_video_name(file):
                inside = PurePath(file.relative_to(videos / name).with_suffix(""))
                if inside in files[name]:
                    folder.problems.append(Problem(inside.as_posix(), f"{name} has it twice: {file.name}"))
                files[name].setdefault(inside, file)
    paths = sorted({path for found in files.values() for path in found})
    if not paths:
        raise InputError(f"{videos} holds no video ({', '.join(VIDEO_SUFFIXES)}) of {', '.join(rig.folders)}")
    folder.names = [path.as_posix() for path in paths]
    present = [name for name in rig.folders if (videos / name).is_dir()]
    for path, title in zip(paths, unique_names(paths), strict=True):
        if missing := [name for name in present if path not in files[name]]:
            folder.problems.append(Problem(path.as_posix(), f"{', '.join(missing)} missing"))
        elif len(present) == len(rig.folders):
            folder.clips.append(_clip(root, rig, path, title, {name: files[name][path] for name in rig.folders}))
    folder.clips.sort(key=lambda clip: clip.key)
    return folder


def _other_cameras(videos: Path, rig: Rig) -> list[str]:
    """Folders that hold videos and are none of the rig's; a conversion leaves others beside its cameras."""
    return [
        path.name
        for path in sorted(videos.iterdir())
        if path.name not in rig.folders
        and not path.name.startswith(".")
        and ((path.is_dir() and any(map(is_video_name, walk_files(path)))) or (path.is_file() and is_video_name(path)))
    ]


def _clip(root: Path, rig: Rig, path: PurePath, title: str, files: dict[str, Path]) -> Clip:
    views = tuple(_view(root, rig, camera, path, files[camera.folder]) for camera in rig.cameras)
    front = views[rig.folders.index(rig.front)]
    return Clip(
        key=safe_key(title),
        video=front.video,
        name=path.as_posix(),
        caption_file=front.caption_file,
        embedding_file=front.embedding_file,
        title=title,
        relative=path,
        caption_place=f"expected {_text_file(root, CAPTIONS_FOLDER, rig.front, path, '.txt')}",
        views=views,
    )


def _view(root: Path, rig: Rig, camera: Camera, path: PurePath, video: Path) -> View:
    view = View(video, camera.view_id, camera.folder, camera.name, frame_repeat=camera.frame_repeat)
    if rig.captions == "front" and camera.folder != rig.front:
        return view
    caption = _text_file(root, CAPTIONS_FOLDER, camera.folder, path, ".txt")
    pickles = [_text_file(root, EMBEDDINGS_FOLDER, camera.folder, path, suffix) for suffix in EMBEDDING_SUFFIXES]
    return replace(
        view,
        caption_file=caption if caption.is_file() else None,
        embedding_file=next((file for file in pickles if file.is_file()), None),
    )


def _text_file(root: Path, folder: str, camera: str, path: PurePath, suffix: str) -> Path:
    return root / folder / camera / path.with_name(path.name + suffix)


def give_texts(
    clips: Sequence[Clip], root: Path, rig: Rig, *, use_embeddings: bool, default_caption: str | None
) -> tuple[list[Clip], list[Problem]]:
    """Clips whose views have the texts that the rig gives them, and what is missing or out of date.

    Args:
        clips: of :func:`list_views`.
        root: the folder.
        rig: says which cameras have text.
        use_embeddings: every text is an embedding that is there, made from the caption that is there if one is.
        default_caption: caption of views that have none.
    """
    told = set(rig.folders if rig.captions == "all" else [rig.front])
    ready, problems, captions = [], [], {}
    for clip in clips:
        views = tuple(
            _with_text(view, use_embeddings, default_caption) if view.camera in told else view for view in clip.views
        )
        for view in views:
            if view.embedding_file is not None and view.caption_file is not None:
                captions[view.embedding_file] = view.read_caption
        what, suffix = ("embedding", ".pickle") if use_embeddings else ("caption", ".txt")
        place = EMBEDDINGS_FOLDER if use_embeddings else CAPTIONS_FOLDER
        bare = [view.camera for view in views if view.camera in told and not _is_ready(view, use_embeddings)]
        if bare:
            files = [str(_text_file(root, place, camera, clip.relative, suffix)) for camera in bare]
            problems.append(Problem(clip.name, f"no {what} (expected {', '.join(files)})"))
        front = next(view for view in views if view.camera == rig.front)
        texts = {name: getattr(front, name) for name in ("caption", "caption_file", "embedding_file")}
        ready.append(replace(clip, views=views, **texts))
    stale = set(stale_embeddings(root / EMBEDDINGS_FOLDER, captions))
    for clip in ready:
        old = [view.camera for view in clip.views if view.embedding_file in stale]
        if old:
            problems.append(Problem(clip.name, f"the embedding of {', '.join(old)} is of another caption"))
    return ready, problems


def _with_text(view: View, use_embeddings: bool, default_caption: str | None) -> View:
    if not use_embeddings:
        view = replace(view, embedding_file=None)
    needed = view.caption_file is None and view.embedding_file is None
    return replace(view, caption=default_caption) if needed else view


def _is_ready(view: View, use_embeddings: bool) -> bool:
    return view.embedding_file is not None if use_embeddings else view.has_text


def refuse_problems(problems: Sequence[Problem], what: str, advice: str) -> None:
    """InputError that lists problems, where there are any."""
    if problems:
        more = f"; and {len(problems) - SHOWN} more" if len(problems) > SHOWN else ""
        raise InputError(f"{what}: {'; '.join(map(str, problems[:SHOWN]))}{more}; {advice}")


def uneven_views(cameras: Sequence[str], infos: Sequence[VideoInfo]) -> str:
    """How the files of a clip's cameras differ in rate or length, in words; empty when they do not.

    Files of variable rate are compared at one rate, as they are read. A damaged file has the length that its damage
    leaves, which is told elsewhere.
    """
    found, rates = [], [info.fps for info in infos]
    rate = rates[0] if any(info.variable_rate for info in infos) else None
    if one_rate(rates) is None if rate is None else max(rates) > min(rates) * (1 + VARIABLE_TOLERANCE):
        named = ", ".join(f"{name} {fps:g}" for name, fps in zip(cameras, rates, strict=True))
        found.append(f"frame rates differ ({named})")
    whole = [(name, info.frames_at(rate)) for name, info in zip(cameras, infos, strict=True) if not info.damage]
    counts = [frames for _, frames in whole]
    if counts and max(counts) - min(counts) > (0 if rate is None else 1):
        found.append(f"lengths differ ({', '.join(f'{name} {frames} frames' for name, frames in whole)})")
    return ", ".join(found)


def uneven_clips(
    clips: Sequence[Clip], *, keep_damaged: bool = False, on_clip: Callable[[], None] = lambda: None
) -> list[Problem]:
    """The clips whose cameras differ in rate or length; what does not decode is left to who reads it.

    Args:
        clips: of several cameras; others have nothing to differ.
        keep_damaged: as in ``probe``.
        on_clip: called after each clip.
    """
    problems = []
    for clip in clips:
        try:
            infos = [probe(video, keep_damaged=keep_damaged) for video in clip.videos] if clip.views else []
        except InputError:
            infos = []
        what = uneven_views([view.camera for view in clip.views], infos) if infos else ""
        if what:
            problems.append(Problem(clip.name, what))
        on_clip()
    return problems
