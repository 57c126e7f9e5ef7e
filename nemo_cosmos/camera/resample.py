"""Frames and poses at a steady rate, of captures whose frames have times of their own."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from nemo_cosmos.camera.rays import Cameras
from nemo_cosmos.camera.rotations import part_of_turn
from nemo_cosmos.camera.track import MOST_FRAMES, Track
from nemo_cosmos.errors import InputError


def frames_at_rate(times: Tensor, fps: float) -> list[int]:
    """The frames nearest to the times of a steady rate, from the first frame on; their poses stay their own.

    Args:
        times: (N,) seconds that grow.
        fps: of the clip to make.

    Raises:
        InputError: a rate that is not positive, or so fast that a frame would be taken twice.
    """
    wanted = _steady_times(times, fps)
    after = torch.searchsorted(times, wanted).clamp(1, max(len(times) - 1, 1))
    if len(times) == 1:
        return [0]
    nearer = (wanted - times[after - 1] <= times[after] - wanted).long()
    chosen = (after - nearer).tolist()
    if len(set(chosen)) < len(chosen):
        raise InputError(f"{len(times)} frames in {float(times[-1] - times[0]):g} s are too few for {fps:g} fps")
    return chosen


def _steady_times(times: Tensor, fps: float) -> Tensor:
    if not 1e-6 <= fps <= 1e6:
        raise InputError(f"frame rate {fps}: expected a positive number of frames per second")
    count = int((float(times[-1] - times[0])) * fps + 1e-3) + 1
    if count > MOST_FRAMES:
        raise InputError(f"{count} frames at {fps:g} fps: expected at most {MOST_FRAMES}")
    return (times[0] + torch.arange(count, dtype=torch.float64) / fps).clamp(max=float(times[-1]))


def at_rate(track: Track, fps: float) -> Track:
    """The cameras at the times of a steady rate, between the frames of the file.

    Centres and intrinsics are interpolated linearly, rotations along the shortest arc.

    Raises:
        InputError: a track without times, or a rate that is not positive.
    """
    if track.times is None:
        raise InputError(
            "these poses have no times, so no frame rate can be made of them: add a column time in seconds"
        )
    wanted = _steady_times(track.times, fps)
    cameras = interpolate(track.cameras, track.times, wanted)
    return replace(track, names=[f"{time:.6f}" for time in wanted.tolist()], cameras=cameras, times=wanted)


def interpolate(cameras: Cameras, times: Tensor, wanted: Tensor) -> Cameras:
    """Cameras at other times, each within the span of ``times``, which grow."""
    if len(times) == 1:
        return cameras[[0] * len(wanted)]
    after = torch.searchsorted(times, wanted).clamp(1, len(times) - 1)
    share = ((wanted - times[after - 1]) / (times[after] - times[after - 1])).clamp(0, 1)
    start, end = cameras.poses[after - 1], cameras.poses[after]
    poses = start.clone()
    poses[:, :3, 3] = torch.lerp(start[:, :3, 3], end[:, :3, 3], share[:, None])
    turn = start[:, :3, :3].mT @ end[:, :3, :3]
    poses[:, :3, :3] = start[:, :3, :3] @ part_of_turn(turn, share)
    between = torch.lerp(cameras.intrinsics[after - 1], cameras.intrinsics[after], share[:, None])
    return Cameras(poses, between, cameras.size)
