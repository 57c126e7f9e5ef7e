"""Sources by name; a new kind of raw dataset is one file here and its entry in ``SOURCES``."""

from __future__ import annotations

from pathlib import Path

from nemo_cosmos.errors import InputError
from nemo_cosmos.prepare.sources.base import OpenedSource, Sampling, Source, SourceOptions
from nemo_cosmos.prepare.sources.clips import ClipSource
from nemo_cosmos.prepare.sources.images import ImageSource
from nemo_cosmos.prepare.sources.rig import RigSource, refuse_clips

__all__ = ["KINDS", "OpenedSource", "Sampling", "Source", "SourceOptions", "open_source", "refuse_clips"]

_ALL: tuple[Source, ...] = (ImageSource(), RigSource("waymo", "waymo"), RigSource("rig"), ClipSource())
SOURCES: dict[str, Source] = {source.kind: source for source in _ALL}
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
        raise InputError(f"layout {kind!r}: expected one of {', '.join(KINDS)}")
    source = SOURCES[kind] if kind != "auto" else _guess(path, options)
    if not source.has_rig and (given := "--rig" if options.rig else "--captions" if options.captions else None):
        raise InputError(f"{given}: {path} is read as {source.kind}, of one camera each; leave it out, or --layout")
    found = source.open(path, options)
    note = found.note
    if kind == "auto" and (path / "videos").is_dir() and (path / "images").is_dir():
        note = f"{path} holds videos/ and images/: the videos are read, --layout images reads the images"
    unread, problems = source.not_read(path), found.problems
    return OpenedSource(source.kind, found.clips, source.frames, unread, note, found.sampling, found.rig, problems)


def _guess(path: Path, options: SourceOptions) -> Source:
    """The source of what lies at a path; a rig that is given says it."""
    if options.rig is not None:
        return SOURCES["rig"]
    return next(source for source in SOURCES.values() if source.reads(path))
