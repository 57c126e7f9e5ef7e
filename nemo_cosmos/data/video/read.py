"""Probe video files and read their frames as tensors."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from nemo_cosmos.data.resize import Fit
from nemo_cosmos.data.video.examine import Examined, examine
from nemo_cosmos.data.video.frames import DamagedError, instants, resampled
from nemo_cosmos.data.video.streams import open_video, video_stream
from nemo_cosmos.errors import InputError


@dataclass(frozen=True)
class VideoInfo:
    """What a player shows of a video file.

    Attributes:
        frames: number of frames; of a damaged file, those before the damage.
        fps: frame rate, the mean one where it varies.
        height: rows as displayed, that is with square pixels and after the recorded rotation.
        width: columns as displayed.
        duration: seconds from the first frame to the end of the last.
        variable_rate: frame intervals differ, so frame numbers are no measure of time; a constant rate with a few
            missing frames is none.
        damage: what is wrong with the file and where; empty when nothing is.
    """

    frames: int
    fps: float
    height: int
    width: int
    duration: float
    variable_rate: bool
    damage: str = ""
    _found: Examined | None = field(default=None, repr=False, compare=False)

    @property
    def even_rate(self) -> float | None:
        """Rate to resample to so that frames are evenly spaced; None where they are."""
        return self.fps if self.variable_rate else None

    def frames_at(self, fps: float | None) -> int:
        """Frames that reading at the constant rate ``fps`` gives; None: as stored."""
        if fps is None or self._found is None:
            return self.frames
        return instants(self._found, fps)


def probe(path: str | Path, *, keep_damaged: bool = False) -> VideoInfo:
    """Sizes, frame count and rate; reads packets, and decodes the file where those leave room for doubt.

    Args:
        path: video file.
        keep_damaged: count the frames after damage too.

    Raises:
        InputError: the file is missing, empty, has no decodable video, or its colours or geometry are not convertible.
    """
    found = examine(path)
    count = len(found.ticks) if keep_damaged else found.whole
    rate, (height, width) = found.timing.rate, found.display.size
    damage = found.damage(path)
    if not count:
        raise DamagedError(damage)
    duration = found.time(count - 1) + 1 / rate
    return VideoInfo(count, rate, height, width, duration, found.timing.variable, damage, found)


def stated_frames(path: str | Path) -> int | None:
    """Number of frames that the file's header states, which may be wrong; None where it says nothing, as in WebM.

    Raises:
        InputError: the file is missing, empty, or has no video.
    """
    with open_video(path) as container:
        return video_stream(container, path).frames or None


def read_frames(
    path: str | Path,
    start: int = 0,
    count: int | None = None,
    size: tuple[int, int] | None = None,
    *,
    fit: Fit = "crop",
    step: int = 1,
    fps: float | None = None,
    keep_damaged: bool = False,
) -> Tensor:
    """Decode frames ``start, start + step, ...`` as uint8 RGB.

    Args:
        path: video file.
        start: first frame, counted at the rate ``fps`` if given.
        count: frames to return; None: all from ``start`` on.
        size: (height, width) to scale to; None keeps the displayed size.
        fit: how the source fills ``size``: ``crop`` scales to cover and cuts the middle out, ``pad`` scales to fit
            inside and adds black bars, ``stretch`` scales both axes independently.
        step: distance between returned frames.
        fps: resample by time stamps to this constant rate (each instant shows the last frame before it); None: frames
            as stored.
        keep_damaged: take what decodes after lost packets, and combed frames.

    Returns:
        (3, T, H, W) uint8.

    Raises:
        InputError: undecodable or damaged file, or fewer than the asked frames.
    """
    if start < 0 or step < 1 or (count is not None and count < 1):
        raise InputError(
            f"{path}: start={start}, count={count}, step={step}: expected start >= 0, count and step >= 1"
        )
    picked: list[Tensor] = []
    for number, frame in enumerate(resampled(path, fps, keep_damaged=keep_damaged)):
        if number >= start and (number - start) % step == 0:
            picked.append(frame.image(size, fit))
            if len(picked) == count:
                break
    else:
        if count is not None or not picked:
            needed = "any" if count is None else str(start + (count - 1) * step + 1)
            raise InputError(
                f"{path} is too short: {len(picked)} of the frames from {start} on, {needed} frames needed"
            )
    return torch.stack(picked, dim=1)


def frames_of(path: str | Path, numbers: Sequence[int]) -> Tensor:
    """The frames of rising ``numbers``, as stored and at the displayed size, in one pass: (3, n, H, W) uint8.

    Raises:
        InputError: undecodable or damaged file, or fewer frames.
    """
    wanted, picked = set(numbers), []
    for number, frame in enumerate(resampled(path, None)):
        if number in wanted:
            picked.append(frame.image())
            if len(picked) == len(wanted):
                return torch.stack(picked, dim=1)
    raise InputError(f"{path} is too short: {max(numbers) + 1} frames needed")


def iter_windows(
    path: str | Path,
    count: int,
    *,
    stride: int,
    size: tuple[int, int] | None = None,
    fit: Fit = "crop",
    step: int = 1,
    fps: float | None = None,
    rest: bool = False,
    keep_damaged: bool = False,
) -> Iterator[tuple[int, Tensor]]:
    """Every window of ``count`` frames that begins at frame 0, ``stride``, 2 ``stride``, ...; one pass, one window
    held, frames decoded when their window is asked for.

    With ``rest`` the frames after the last whole window come as a shorter one, so that ``stride = count`` gives every
    frame once. Other arguments are those of ``read_frames``. Yields (first frame, (3, count, H, W) uint8).

    Raises:
        InputError: undecodable file, damage after the windows so far, or not even one window (``rest``: frame).
    """
    if count < 1 or stride < 1 or step < 1:
        raise InputError(f"{path}: count={count}, stride={stride}, step={step}: expected at least 1 of each")
    span = (count - 1) * step + 1
    held: deque[Tensor | None] = deque(maxlen=span)
    start = number = 0
    for number, frame in enumerate(resampled(path, fps, keep_damaged=keep_damaged), start=1):
        held.append(frame.image(size, fit) if number > start else None)  # None between windows that lie apart
        if number == start + span:
            yield start, _stacked(held, 0, step)
            start += stride
    if rest and start < number:
        yield start, _stacked(held, start - number, step)
    elif start == 0:
        raise InputError(f"{path} is too short: {number} frames, {1 if rest else span} frames needed")


def _stacked(held: Iterable[Tensor | None], first: int, step: int) -> Tensor:
    return torch.stack([image for image in list(held)[first::step] if image is not None], dim=1)
