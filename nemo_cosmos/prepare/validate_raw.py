"""Check a raw dataset before anything long runs: which clips cannot be used, and why."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from nemo_cosmos.data.clips import Clip
from nemo_cosmos.data.file_pool import map_files
from nemo_cosmos.data.images import read_image
from nemo_cosmos.data.rig import Rig
from nemo_cosmos.data.shards import RATE_DIGITS
from nemo_cosmos.data.video import VideoInfo, probe
from nemo_cosmos.data.views import Problem, uneven_views
from nemo_cosmos.errors import InputError
from nemo_cosmos.prepare.sources import Sampling, SourceOptions, open_source


@dataclass
class RawReport:
    """What was found.

    Attributes:
        kind: layout that the dataset was read in.
        clips: number of clips, usable or not.
        rig: their cameras, None for one each.
        problems: what makes clips unusable.
        warnings: what may be intended but seldom is.
        frames: frame counts of the videos, counted.
        fps: their frame rates, counted.
        sizes: (height, width) of each camera's videos, or of all under an empty name, counted.
    """

    kind: str
    clips: int = 0
    rig: Rig | None = None
    problems: list[Problem] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    frames: Counter[int] = field(default_factory=Counter)
    fps: Counter[float] = field(default_factory=Counter)
    sizes: dict[str, Counter[tuple[int, int]]] = field(default_factory=dict)

    @property
    def unusable(self) -> int:
        """Clips with a problem; all of them where one concerns the whole folder."""
        clips = {problem.clip for problem in self.problems}
        return self.clips if "" in clips else len(clips)


def validate_raw(
    path: str | Path,
    layout: str = "auto",
    rig: str | Path | None = None,
    on_clip: Callable[[int, int], None] = lambda done, total: None,
) -> RawReport:
    """Look at every file of a raw dataset; goes on after an error, so that one call finds all.

    Videos are probed as ``prepare`` does, which reads their packets and decodes those that leave doubt.

    Args:
        path: the dataset.
        layout: one of ``sources.KINDS``.
        rig: file or name of a rig, for layouts of several cameras.
        on_clip: called with (clips done, clips in all).

    Raises:
        InputError: nothing there is of the layout. Everything else is in the report.
    """
    opened = open_source(path, layout, SourceOptions(captions_needed=False, rig=rig, list_problems=True))
    report = RawReport(opened.kind, rig=opened.rig, problems=list(opened.problems))
    report.clips = len(opened.clips) + len({problem.clip for problem in opened.problems} - {""})
    if opened.note:
        report.warnings.append(opened.note)
    if opened.not_read:
        report.warnings.append(f"not read, for their suffixes: {opened.not_read}")
    silent, short = [], []
    videos = [video for clip in opened.clips if not clip.still for video in clip.videos]
    with contextlib.closing(map_files(probe, videos)) as probed:
        for done, clip in enumerate(opened.clips, start=1):
            shortest = _check(clip, probed, report, opened.sampling)
            if not _has_text(clip, opened.rig):
                silent.append(clip.name)
            if opened.rig is not None and shortest is not None and shortest < opened.sampling.frames:
                short.append(f"{clip.name} ({shortest})")
            on_clip(done, len(opened.clips))
    usual = opened.sampling
    rate = f" at {usual.fps:g} fps" if usual.fps else ""
    _warn(report, short, f"shorter than the {usual.frames} frames{rate} of a sample")
    _warn(report, silent, "without caption or embedding")
    for camera, sizes in report.sizes.items():
        if len(sizes) > 1 and opened.rig is not None:
            named = ", ".join(f"{height}x{width} ({count})" for (height, width), count in sizes.most_common())
            report.warnings.append(f"{camera} has videos of several sizes: {named}")
    return report


def _warn(report: RawReport, names: list[str], what: str) -> None:
    if names:
        report.warnings.append(f"{len(names)} clips {what}, for example {names[0]}")


def _check(clip: Clip, probed: Iterator[VideoInfo | Exception], report: RawReport, sampling: Sampling) -> int | None:
    """Put what was found of a clip's files into the report; gives the least frames of any, None where unknown.

    Args:
        probed: what probing gives, next for the videos of this clip.
    """
    problems, infos = [], []
    for camera, file in zip([view.camera for view in clip.views] or [""], clip.videos, strict=True):
        try:
            if clip.still:
                height, width = read_image(file).shape[1:]
            else:
                info = next(probed)
                if isinstance(info, Exception):
                    raise info
                infos.append(info)
                height, width = info.height, info.width
                problems += [info.damage] if info.damage else []
                report.frames[info.frames] += 1
                report.fps[round(info.fps, RATE_DIGITS)] += 1
        except InputError as error:
            problems.append(str(error))
            continue
        report.sizes.setdefault(camera, Counter())[height, width] += 1
    if clip.views and len(infos) == len(clip.views):
        uneven = uneven_views([view.camera for view in clip.views], infos)
        problems += [uneven] if uneven else []
    try:
        if clip.has_caption:
            clip.read_captions()
    except InputError as error:
        problems.append(str(error))
    report.problems += [Problem(clip.name, what) for what in problems]
    return min((_frames(info, sampling) for info in infos), default=None)


def _frames(info: VideoInfo, sampling: Sampling) -> int:
    return info.frames_at(sampling.fps or info.even_rate)


def _has_text(clip: Clip, rig: Rig | None) -> bool:
    """Whether every view has text that shall have it."""
    if rig is None:
        return clip.has_caption
    told = rig.folders if rig.captions == "all" else (rig.front,)
    return all(view.has_text for view in clip.views if view.camera in told)
