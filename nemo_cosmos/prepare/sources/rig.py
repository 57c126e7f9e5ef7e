"""Clips of several cameras that move together: ``videos/CAMERA/NAME.mp4``; see ``data.views`` for the layout."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from nemo_cosmos.data.listing import VIDEO_SUFFIXES, count_suffixes, walk_files
from nemo_cosmos.data.rig import RIG_NAME, Rig, find_rig, read_rig
from nemo_cosmos.data.views import VIDEOS_FOLDER, Problem, give_texts, list_views, refuse_problems
from nemo_cosmos.errors import InputError
from nemo_cosmos.prepare.sources.base import Found, Sampling, SourceOptions


class RigSource:
    """A folder for each camera of a rig.

    Args:
        kind: name of the layout.
        shipped: name of its rig in the package; None: the dataset's own ``rig.yaml``.
    """

    frames: int | None = None
    has_rig = True

    def __init__(self, kind: str, shipped: str | None = None) -> None:
        self.kind, self.shipped = kind, shipped

    def reads(self, path: Path) -> bool:
        """A folder with a rig of its own, or with cameras of the layout's."""
        if not path.is_dir():
            return False
        if self.shipped is None:
            return (path / RIG_NAME).is_file()
        return find_rig(path) == read_rig(self.shipped)

    def open(self, path: Path, options: SourceOptions) -> Found:
        rig = self._rig(path, options)
        found = list_views(path, rig, allow_others=options.rig is not None)
        clips, problems = found.clips, list(found.problems)
        if options.captions_needed:
            clips, bare = give_texts(
                clips,
                path,
                rig,
                use_embeddings=options.use_embeddings,
                default_caption=options.default_caption,
            )
            problems += bare
            spoilt = {problem.clip for problem in bare}
            clips = [clip for clip in clips if clip.name not in spoilt]
        if not options.list_problems:
            refuse_clips(path, problems, len(found.names))
        note = f"not of the rig {rig.source}, and left out: {', '.join(found.others)}" if found.others else ""
        own = {name: value for name in ("frames", "size", "fit", "fps") if (value := getattr(rig, name)) is not None}
        return Found(clips, replace(Sampling(), **own), rig, problems, note)

    def not_read(self, path: Path) -> str:
        rig_folders = [folder for folder in (path / VIDEOS_FOLDER).iterdir() if folder.is_dir()]
        files = [file for folder in rig_folders for file in walk_files(folder)]
        cameras = {file.parent for file in files if file.suffix.lower() in VIDEO_SUFFIXES}
        return count_suffixes(
            file for file in files if file.parent in cameras and file.suffix.lower() not in VIDEO_SUFFIXES
        )

    def _rig(self, path: Path, options: SourceOptions) -> Rig:
        if options.rig is not None:
            rig = read_rig(options.rig)
        elif self.shipped is not None:
            rig = read_rig(self.shipped)
        elif (path / RIG_NAME).is_file():
            rig = read_rig(path / RIG_NAME)
        else:
            found = f"has no {RIG_NAME}" if path.is_dir() else "is neither a folder nor a list"
            raise InputError(f"{path} {found}: say which folders are cameras with --rig FILE")
        return rig if options.captions is None else replace(rig, captions=options.captions)


def refuse_clips(path: Path, problems: list[Problem], count: int) -> None:
    """InputError that lists what is wrong with some of ``count`` clips, and what to do; nothing where nothing is."""
    spoilt = len({problem.clip for problem in problems if problem.clip})
    what = f"{path}: {spoilt} of {count} clips cannot be used" if spoilt else f"{path} does not fit its rig"
    whole = any(not problem.clip for problem in problems)
    advice = ["complete the folder, or name another rig with --rig"] if whole else []
    if spoilt and not whole:
        advice.append("complete or remove them, or leave such clips out with --skip-incomplete")
    if any("no caption" in problem.what for problem in problems):
        advice.append("--default-caption TEXT is for captions")
    if any("embedding" in problem.what for problem in problems):
        advice.append("tools/get_t5_embeddings_from_waymo.py writes embeddings, --text-encoder does without")
    refuse_problems(problems, what, "; ".join(advice))
