"""Sources by name; a new kind of raw dataset is one file here and its entry in ``SOURCES``."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from nemo_cosmos.errors import InputError
from nemo_cosmos.prepare.sources.base import OpenedSource, SceneOptions, Source, SourceOptions
from nemo_cosmos.prepare.sources.clips import ClipSource
from nemo_cosmos.prepare.sources.images import ImageSource
from nemo_cosmos.prepare.sources.scenes import COLMAP, DL3DV, NERFSTUDIO, SCENE_KINDS

__all__ = ["KINDS", "OpenedSource", "SCENE_KINDS", "SceneOptions", "Source", "SourceOptions", "open_source"]

SOURCES: dict[str, Source] = {
    source.kind: source for source in (DL3DV, NERFSTUDIO, COLMAP, ImageSource(), ClipSource())
}
"""In the order in which they are asked whether they read a path."""
KINDS = ("auto", *SOURCES)


def open_source(
    path: str | Path,
    kind: str = "auto",
    options: SourceOptions = SourceOptions(),  # noqa: B008
) -> OpenedSource:
    """The clips of a raw dataset.

    Args:
        path: folder or list.
        kind: one of ``KINDS``; "auto" goes by what lies there.
        options: what is asked of the clips.

    Raises:
        InputError: an unknown kind, or what ``Source.open`` refuses.
    """
    path = Path(path)
    if kind not in KINDS:
        raise InputError(f"source {kind!r}: expected one of {', '.join(KINDS)}")
    source = SOURCES[kind] if kind != "auto" else next(s for s in SOURCES.values() if s.reads(path))
    if source.kind not in SCENE_KINDS and replace(options.scenes, apart=()) != SceneOptions():
        raise InputError(
            f"{path}: chunks, seed, captions and limits of zip files are for scenes, not for {source.kind}"
        )
    clips = list(source.open(path, options))
    note = ""
    if kind == "auto" and (path / "videos").is_dir() and (path / "images").is_dir():
        note = f"{path} holds videos/ and images/: the videos are read, --source images reads the images"
    return OpenedSource(source.kind, clips, source.frames, source.not_read(path), note, source.defaults)
