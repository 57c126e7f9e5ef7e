"""A user's folder of videos, cut into the small clips of the demo."""

from __future__ import annotations

import math
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from nemo_cosmos.atomic import write_text
from nemo_cosmos.data.clips import Clip, find_clips
from nemo_cosmos.data.video import probe, read_frames, write_mp4
from nemo_cosmos.demo.sizes import DemoSize
from nemo_cosmos.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

PATCH = 16
"""Pixels per side of one token: tokenizer (8) times patch embedding (2)."""
MAX_VIDEOS = 128
FPS_WANTED = 8.0
"""Faster videos are thinned to about this rate, so that a clip of a few frames shows some motion."""


def list_clips(data: Path) -> list[Clip]:
    """The videos that the demo takes: all, or some spread over the folder when there are many."""
    clips = find_clips(data)
    return clips[:: math.ceil(len(clips) / MAX_VIDEOS)]


def fitting_size(clips: list[Clip], side: int) -> tuple[int, int]:
    """(height, width) of about side x side pixels in the shape of the first readable video, for whole tokens."""
    for clip in clips:
        try:
            info = probe(clip.video)
        except InputError:
            continue  # counted and named when the clips are cut
        ratio = info.height / info.width
        tokens = max(2, side // PATCH)
        choices = [(h, w) for h in range(2, 2 * tokens + 1) for w in range(2, 2 * tokens + 1)]
        height, width = min(
            choices,
            key=lambda hw: 2 * abs(math.log(hw[0] / hw[1] / ratio)) + abs(math.log(hw[0] * hw[1] / tokens**2)),
        )
        return height * PATCH, width * PATCH
    raise InputError(f"none of the {len(clips)} videos can be read; first: {clips[0].video}")


def cut_clips(data: Path, out: Path, size: DemoSize) -> None:
    """Writes `out/{train,held_out}/{videos,metas}`: windows of `size.frames` frames, small, with their captions.

    Whole videos are held out, at most `size.held_out` and a fifth of all; each gives its first window. The others give
    overlapping windows, at most `size.clips`. Videos that do not decode or are too short are skipped and counted.

    Raises:
        InputError: fewer than two usable videos.
    """
    from rich.progress import track

    sources = list_clips(data)
    pixels = fitting_size(sources, size.side)
    # A clip cut by an earlier, interrupted call may be incomplete in its last window.
    shutil.rmtree(out, ignore_errors=True)
    usable, skipped = [], []
    for clip in track(sources, "reading"):
        try:
            info = probe(clip.video)
            step = max(1, round(info.fps / FPS_WANTED))
            available = math.ceil(info.frames / step)
            if available < size.frames:
                raise InputError(f"{clip.video}: {available} frames at the demo's rate, {size.frames} needed")
            frames = read_frames(clip.video, 0, min(available, 8 * size.frames), pixels, step=step)
        except InputError as error:
            skipped.append(str(error))
            continue
        usable.append((clip, frames, info.fps / step))
    if len(usable) < 2:
        raise InputError(
            f"{data}: {len(usable)} usable videos, at least 2 needed (one is held out). Skipped: "
            + ("; ".join(skipped[:5]) or "none")
        )
    held_out = max(1, min(size.held_out, len(usable) // 5))
    every = len(usable) // held_out
    budget = max(1, size.clips // (len(usable) - held_out))
    written = 0
    for number, (clip, frames, fps) in enumerate(usable):
        if number % every == 0 and number // every < held_out:
            _write(out / "held_out", clip.key, frames[:, : size.frames], fps, clip)
            continue
        last = frames.shape[1] - size.frames
        count = min(budget, last + 1)
        starts = sorted({round(last * k / max(1, count - 1)) for k in range(count)})
        for start in starts:
            _write(out / "train", f"{clip.key}_{start:04d}", frames[:, start : start + size.frames], fps, clip)
        written += len(starts)
    print(f"{written} clips of {size.frames} frames, {pixels[0]}x{pixels[1]} pixels, to train on")
    print(f"{held_out} of {len(usable)} videos held out, {len(skipped)} skipped")
    for reason in skipped[:5]:
        print(f"  skipped {reason}")


def _write(folder: Path, name: str, frames: Tensor, fps: float, clip: Clip) -> None:
    (folder / "videos").mkdir(parents=True, exist_ok=True)
    (folder / "metas").mkdir(exist_ok=True)
    write_mp4(folder / "videos" / f"{name}.mp4", frames, fps, quality=12)
    write_text(folder / "metas" / f"{name}.txt", clip.read_caption() + "\n")
