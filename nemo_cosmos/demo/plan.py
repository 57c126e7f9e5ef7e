"""What the demo takes of a folder of videos: rate, length and size of its windows, by what the videos have.

Everything here is decided from the headers of the videos; their frames are read in ``demo.clips``.
"""

from __future__ import annotations

import math
import statistics
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

from nemo_cosmos.data.clips import Clip, list_clips, not_read
from nemo_cosmos.data.video import VideoInfo, probe
from nemo_cosmos.demo.sizes import DemoSize
from nemo_cosmos.errors import InputError

PATCH = 16
"""Pixels per side of one token: tokenizer (8) times patch embedding (2)."""
MAX_VIDEOS = 128
MAX_PIXELS = 8e9
"""Pixels that are decoded of all videos together; about a minute's work."""
FPS_WANTED = 8.0
"""Faster videos are thinned to about this rate, so that a window of a few frames shows some motion."""
MOST = 2 / 3
"""Share of the videos that shall be long enough for a window to train on and one to hold out."""


@dataclass(frozen=True)
class Source:
    """A video that can be used, and what its header says."""

    clip: Clip
    info: VideoInfo

    @property
    def frames(self) -> int:
        """Frames at its own rate, evenly spaced."""
        return self.info.frames_at(self.info.even_rate)

    @property
    def pixels(self) -> int:
        """Of a frame."""
        return self.info.height * self.info.width


@dataclass(frozen=True)
class ClipPlan:
    """The windows of a folder of videos.

    Attributes:
        sources: videos that are used, sorted by key.
        skipped: why each of the others is not.
        left_out: videos that were not looked at, or not used, because there are many.
        not_read: what else lies in the folder, counted by suffix.
        frames: of a window.
        rate: frames a second to which faster videos are thinned.
        size: (height, width) of a window in pixels.
    """

    sources: tuple[Source, ...]
    skipped: tuple[str, ...]
    left_out: int
    frames: int
    rate: float
    size: tuple[int, int]
    not_read: str = ""

    def step(self, source: Source) -> int:
        """Distance between the frames taken of a video: less where there would not be a window of them."""
        return min(thinning(source, self.rate), max(1, source.frames // self.frames))


def plan_clips(data: Path, size: DemoSize) -> ClipPlan:
    """Looks at the videos of a folder and chooses rate, length and size of the windows.

    The rate is the median of the videos', at most ``FPS_WANTED``, or twice that. The length is the longest of
    ``size.frames`` that ``MOST`` of the videos have twice at such a rate, else unthinned; else the longest that
    ``MOST`` have once; else the shortest. The size has the shape that most videos have, in whole tokens.

    Raises:
        InputError: no videos, or none that can be used.
    """
    found = list_clips(data)
    looked_at = found[:: math.ceil(len(found) / MAX_VIDEOS)]
    shortest = size.frames[-1]
    sources, skipped = [], []
    for clip in looked_at:
        try:
            source = Source(clip, probe(clip.video))
            if source.frames < shortest:
                raise InputError(f"{clip.video} is too short: {source.frames} frames, {shortest} needed")
        except InputError as error:
            skipped.append(str(error))
            continue
        sources.append(source)
    if not sources:
        reasons = "; ".join(skipped[:3]) + ("; ..." if len(skipped) > 3 else "")
        raise InputError(f"{data}: none of its {len(looked_at)} videos can be used: {reasons}")
    frames, rate = window_length(sources, size)
    long = tuple(source for source in sources if source.frames >= frames)
    skipped += [
        f"{source.clip.video} is too short: {source.frames} frames, where most videos have windows of {frames}"
        for source in sources
        if source.frames < frames
    ]
    plan = ClipPlan(long, tuple(skipped), 0, frames, rate, window_size(list(long), size.area), not_read(data))
    used = _affordable(plan)
    return replace(plan, sources=used, left_out=len(found) - len(skipped) - len(used))


def thinning(source: Source, rate: float) -> int:
    """Distance between the frames of a video at about ``rate`` frames a second."""
    return max(1, round(source.info.fps / rate))


def window_length(sources: list[Source], size: DemoSize) -> tuple[int, float]:
    """(frames, frames a second) of the windows of these videos, by the rule of ``plan_clips``."""
    slow = min(FPS_WANTED, statistics.median(source.info.fps for source in sources))
    fast = max(source.info.fps for source in sources)
    thinned = [(2, frames, rate) for frames in size.frames for rate in (slow, 2 * slow)]
    whole = [(times, frames, fast) for times in (2, 1) for frames in size.frames]
    for times, frames, rate in thinned + whole:
        long = sum(math.ceil(source.frames / thinning(source, rate)) >= times * frames for source in sources)
        if long >= MOST * len(sources):
            return frames, rate
    return size.frames[-1], slow


def window_size(sources: list[Source], area: tuple[int, int]) -> tuple[int, int]:
    """(height, width) of at least about ``area`` pixels in the shape of most videos, for whole tokens."""
    shapes = Counter(_fitting((source.info.height, source.info.width), area) for source in sources)
    return shapes.most_common(1)[0][0]


def _fitting(shape: tuple[int, int], area: tuple[int, int]) -> tuple[int, int]:
    tokens = area[0] * area[1] // PATCH**2
    ratio = math.log(shape[0] / shape[1])
    sides = range(2, tokens + 1)
    height, width = min(
        ((h, w) for h in sides for w in sides if 0.9 * tokens <= h * w <= 2 * tokens),
        key=lambda hw: 2 * abs(math.log(hw[0] / hw[1]) - ratio) + abs(math.log(hw[0] * hw[1] / tokens)),
    )
    return height * PATCH, width * PATCH


def _affordable(plan: ClipPlan) -> tuple[Source, ...]:
    """All videos, or some spread over the folder where two windows of each would be too much to decode."""
    cost = sum(source.pixels * 2 * plan.frames * plan.step(source) for source in plan.sources)
    return plan.sources[:: max(1, math.ceil(cost / (2 * MAX_PIXELS)))]
