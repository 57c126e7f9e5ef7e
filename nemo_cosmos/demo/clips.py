"""Videos cut into the windows of the demo: some to train on, some held out."""

from __future__ import annotations

import math
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from nemo_cosmos.atomic import write_json, write_text
from nemo_cosmos.data.resize import kept_share
from nemo_cosmos.data.video import read_frames, write_mp4
from nemo_cosmos.demo.plan import MAX_PIXELS, ClipPlan, Source
from nemo_cosmos.demo.sizes import DemoSize
from nemo_cosmos.errors import InputError
from nemo_cosmos.typed import from_json, read_object

if TYPE_CHECKING:
    from torch import Tensor

_T = TypeVar("_T")

CAPTION = "a video"
"""Of videos without a caption."""
ENOUGH_SCENES = 5
"""Videos from which on whole ones are held out."""
MOST_WINDOWS = 24
"""Lengths of a window that are read of one video; more windows than that overlap."""
SHOWN_TRAINING = 4
"""Training windows that are shown where nothing is held out."""
NAMED = 5
"""Skipped videos of which it is said why."""
GROUPS = {
    "held_out_windows": "Held-out windows",
    "held_out_scenes": "Held-out scenes",
    "training_windows": "Training windows",
}
"""What a shown window can be, and its heading."""


@dataclass(frozen=True)
class Cut:
    """What was cut out of a folder of videos: ``clips.json``.

    Attributes:
        frames: of a window.
        size: [height, width] in pixels.
        training_windows: how many there are to train on.
        groups: names of the shown windows by group, a key of ``GROUPS``.
        missing: why a group of held-out windows is empty, by group.
        used: sentences that say what was taken of which videos.
    """

    frames: int
    size: list[int]
    training_windows: int
    groups: dict[str, list[str]]
    missing: dict[str, str]
    used: list[str]


@dataclass
class _Taken:
    """The frames of one video at the demo's rate and size."""

    source: Source
    caption: str
    frames: Tensor
    fps: float
    held_out: bool = False

    @property
    def count(self) -> int:
        return self.frames.shape[1]


def read_cut(folder: Path) -> Cut:
    """What ``cut_clips`` wrote to a folder; InputError when it is damaged."""
    file = folder / "clips.json"
    return from_json(Cut, read_object(file), f"{file}")


def cut_clips(plan: ClipPlan, out: Path, size: DemoSize, described: str) -> Cut:
    """Writes `out/{train,shown}/{videos,metas}` and `out/clips.json`.

    Of `ENOUGH_SCENES` and more videos some are held out whole. Of the others, those long enough have their last window
    held out: no frame of it is trained on. Where nothing can be held out, some training windows are shown instead.
    Videos that do not decode are skipped and named.

    Args:
        plan: which videos, and rate, length and size of the windows.
        out: folder, replaced.
        size: how many windows.
        described: where the videos are from, in words.

    Raises:
        InputError: no video decodes.
    """
    from rich.progress import track

    # What an earlier, interrupted call cut may be incomplete in its last window.
    shutil.rmtree(out, ignore_errors=True)
    taken, skipped = [], list(plan.skipped)
    for source in track(plan.sources, "reading"):
        try:
            taken.append(_take(source, plan, size))
        except InputError as error:
            skipped.append(str(error))
    if not taken:
        raise InputError(f"none of the {len(plan.sources)} videos decodes: {'; '.join(skipped[:3])}")
    scenes = _spread(taken, min(size.held_out_scenes, len(taken) // ENOUGH_SCENES))
    trained = [clip for clip in taken if clip not in scenes]
    ends = _spread([clip for clip in trained if clip.count >= 2 * plan.frames], size.held_out_windows)
    for clip in ends:
        clip.held_out = True
    training = _training_windows(trained, plan.frames, size.training_windows)
    for clip, start in training:
        _write(out / "train", f"{clip.source.clip.key}_{start:04d}", clip, start, plan.frames)
    groups: dict[str, list[str]] = {
        "held_out_windows": [_show(out, "window", clip, clip.count - plan.frames, plan.frames) for clip in ends],
        "held_out_scenes": [_show(out, "scene", clip, 0, plan.frames) for clip in scenes],
        "training_windows": [],
    }
    if not ends and not scenes:
        groups["training_windows"] = [
            _show(out, "training", clip, start, plan.frames) for clip, start in _spread(training, SHOWN_TRAINING)
        ]
    cut = Cut(
        frames=plan.frames,
        size=list(plan.size),
        training_windows=len(training),
        groups=groups,
        missing=_missing(taken, ends, scenes, plan.frames),
        used=_used(described, taken, plan, training, ends, scenes) + _left_out(plan, skipped),
    )
    write_json(out / "clips.json", asdict(cut))
    for line in cut.used:
        print(f"  {line}")
    return cut


def _take(source: Source, plan: ClipPlan, size: DemoSize) -> _Taken:
    """Frames of a video from its start, as many as its share of the training windows can use."""
    step = plan.step(source)
    windows = min(MOST_WINDOWS, math.ceil(size.training_windows / len(plan.sources)) + 1)
    decoded = max(2 * plan.frames * step, int(MAX_PIXELS / len(plan.sources) / source.pixels))
    count = min(math.ceil(source.frames / step), windows * plan.frames, decoded // step)
    info = source.info
    frames = read_frames(source.clip.video, 0, count, plan.size, step=step, fps=info.even_rate)
    caption = source.clip.read_caption() if source.clip.has_caption else ""
    return _Taken(source, caption or CAPTION, frames, info.fps / step)


def _spread(items: Sequence[_T], count: int) -> list[_T]:
    """At most ``count`` of the items, evenly spaced."""
    count = min(count, len(items))
    return [items[(2 * number + 1) * len(items) // (2 * count)] for number in range(count)]


def _training_windows(clips: list[_Taken], frames: int, most: int) -> list[tuple[_Taken, int]]:
    """Clip and first frame of each window, evenly spaced in what each clip has before its held-out end."""
    share = max(1, round(most / len(clips)))
    windows = []
    for clip in clips:
        last = clip.count - frames * (2 if clip.held_out else 1)
        count = min(share, last + 1)
        starts = {round(last * number / max(1, count - 1)) for number in range(count)}
        windows += [(clip, start) for start in sorted(starts)]
    return windows


def _show(out: Path, prefix: str, clip: _Taken, start: int, frames: int) -> str:
    name = f"{prefix}_{clip.source.clip.key}_{start:04d}"
    _write(out / "shown", name, clip, start, frames)
    return name


def _write(folder: Path, name: str, clip: _Taken, start: int, frames: int) -> None:
    (folder / "videos").mkdir(parents=True, exist_ok=True)
    (folder / "metas").mkdir(exist_ok=True)
    write_mp4(folder / "videos" / f"{name}.mp4", clip.frames[:, start : start + frames], clip.fps, quality=12)
    write_text(folder / "metas" / f"{name}.txt", clip.caption + "\n")


def _missing(taken: list[_Taken], ends: list[_Taken], scenes: list[_Taken], frames: int) -> dict[str, str]:
    missing = {}
    if not ends:
        longest = max(clip.count for clip in taken)
        missing["held_out_windows"] = (
            f"No window is held out: that takes a clip of {2 * frames} frames, one window to train on and one apart, "
            f"and the longest has {longest}."
        )
    if not scenes:
        missing["held_out_scenes"] = (
            f"No scene is held out: that takes {ENOUGH_SCENES} clips, and {_count(len(taken), 'is', 'are')} usable."
        )
    return missing


def _used(
    described: str,
    taken: list[_Taken],
    plan: ClipPlan,
    training: list[tuple[_Taken, int]],
    ends: list[_Taken],
    scenes: list[_Taken],
) -> list[str]:
    """Sentences on clips, rates, windows, size, and what is held out."""
    height, width = plan.size
    lengths = _span([clip.source.frames for clip in taken], "d")
    sentences = [
        f"{_count(len(taken), 'clip', 'clips')} {described}: {lengths} frames at "
        f"{_span([clip.source.info.fps for clip in taken], '.3g')} frames a second.",
        f"Windows of {plan.frames} frames at {_span([clip.fps for clip in taken], '.3g')} frames a second, "
        f"{height} x {width} pixels (height x width).",
        f"{_count(len(training), 'window', 'windows')} to train on.",
    ]
    if ends or scenes:
        parts = []
        if ends:
            parts.append(f"the last {plan.frames} frames of {_count(len(ends), 'clip', 'clips')}")
        if scenes:
            parts.append(f"{_count(len(scenes), 'whole clip', 'whole clips')}")
        sentences.append(f"Held out, no frame of it trained on: {' and '.join(parts)}.")
    else:
        sentences.append("Nothing is held out: there is too little. Shown are windows that were trained on.")
    shapes = [(clip.source.info.height, clip.source.info.width) for clip in taken]
    cropped = sum(kept_share(shape, plan.size, "crop") < 0.85 for shape in shapes)
    if cropped:
        sentences.append(f"{_count(cropped, 'clip has', 'clips have')} another shape: the middle is cut out.")
    uneven = sum(clip.source.info.variable_rate for clip in taken)
    if uneven:
        sentences.append(f"{_count(uneven, 'clip', 'clips')} of variable rate: resampled to the mean one.")
    short = sum(clip.count < clip.source.frames // plan.step(clip.source) for clip in taken)
    if short:
        sentences.append(f"Of {_count(short, 'long clip', 'long clips')} the beginning alone is used.")
    damaged = sum(bool(clip.source.info.damage) for clip in taken)
    if damaged:
        sentences.append(f"{_count(damaged, 'clip is', 'clips are')} damaged: what comes before the damage is used.")
    silent = sum(not clip.source.clip.has_caption or clip.caption == CAPTION for clip in taken)
    if silent:
        sentences.append(f"{_count(silent, 'clip', 'clips')} without a caption: “{CAPTION}” is taken.")
    return sentences


def _left_out(plan: ClipPlan, skipped: list[str]) -> list[str]:
    sentences = []
    if plan.left_out:
        sentences.append(f"{_count(plan.left_out, 'further video', 'further videos')} not used: there are many.")
    if skipped:
        more = f"; and {len(skipped) - NAMED} more" if len(skipped) > NAMED else ""
        sentences.append(f"{_count(len(skipped), 'video', 'videos')} skipped: {'; '.join(skipped[:NAMED])}{more}.")
    if plan.not_read:
        sentences.append(f"Not read, because they are no videos: {plan.not_read}.")
    return sentences


def _count(number: int, one: str, more: str) -> str:
    return f"{number} {one if number == 1 else more}"


def _span(values: Sequence[float], form: str) -> str:
    """`24 to 46`, or the one value that all have."""
    low, high = format(min(values), form), format(max(values), form)
    return low if low == high else f"{low} to {high}"
