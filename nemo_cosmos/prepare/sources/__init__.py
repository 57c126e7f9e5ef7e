"""Sources by name; a new kind of raw dataset is one file here and its entry in ``SOURCES``."""

from __future__ import annotations

from pathlib import Path

from nemo_cosmos.errors import InputError
from nemo_cosmos.prepare.sources.base import OpenedSource, Source, SourceOptions
from nemo_cosmos.prepare.sources.clips import ClipSource
from nemo_cosmos.prepare.sources.images import ImageSource

__all__ = ["KINDS", "OpenedSource", "Source", "SourceOptions", "open_source"]

SOURCES: dict[str, Source] = {source.kind: source for source in (ImageSource(), ClipSource())}
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
    clips = source.open(path, options)
    note = ""
    if kind == "auto" and (path / "videos").is_dir() and (path / "images").is_dir():
        note = f"{path} holds videos/ and images/: the videos are read, --source images reads the images"
    return OpenedSource(source.kind, clips, source.frames, source.not_read(path), note)
