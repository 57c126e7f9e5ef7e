"""Pictures of trajectories and rays show what they should: other cameras, other pictures."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image

from nemo_cosmos.camera.plot import FIRST, LAST, channel_pictures, rays_picture, trajectory_picture, write_plot
from nemo_cosmos.camera.presets import preset_cameras
from nemo_cosmos.camera.rays import Cameras, plucker
from nemo_cosmos.errors import InputError
from tests.camera.test_rays import walk

SIZE = (64, 96)


def count(picture: torch.Tensor, colour: tuple[int, int, int]) -> int:
    distance = (picture.float() - torch.tensor(colour).float()[:, None, None]).abs().amax(0)
    return int((distance < 12).sum())


def test_first_and_last_camera_have_their_colours() -> None:
    picture = trajectory_picture(preset_cameras("truck_right", 57, SIZE))
    assert picture.dtype == torch.uint8 and count(picture, FIRST) > 100 and count(picture, LAST) > 100
    above = picture[:, :, 400:800]
    red = ((above[0].int() - above[2].int()) > 100).nonzero()[:, 1].float().mean()
    blue = ((above[2].int() - above[0].int()) > 100).nonzero()[:, 1].float().mean()
    assert red > blue + 100  # The last camera is on the right.


def test_moves_in_opposite_directions_look_different() -> None:
    pictures = [
        trajectory_picture(preset_cameras(f"{name}:1", 9, SIZE)) for name in ("dolly_in", "dolly_out", "crane_up")
    ]
    assert not torch.equal(pictures[0], pictures[1]) and not torch.equal(pictures[0], pictures[2])


def test_a_picture_does_not_depend_on_the_world() -> None:
    moved = walk(9)
    poses = moved.poses.clone()
    poses[:, :3, 3] += 40
    other = trajectory_picture(Cameras(poses, moved.intrinsics, moved.size))
    assert (other.int() - trajectory_picture(moved).int()).abs().float().mean() < 0.1


@pytest.mark.parametrize("frames", [1, 2, 57])
def test_cameras_that_stand_still_are_drawn(frames: int) -> None:
    assert count(trajectory_picture(preset_cameras("static", frames, SIZE)), FIRST) > 100


def test_channels_are_blue_below_and_red_above_zero() -> None:
    rays = plucker(preset_cameras("truck_right", 9, SIZE), (8, 12))
    strips = channel_pictures(rays, 4)
    assert len(strips) == 6 and all(strip.shape == (3, 56, 4 * 12 * 7) for strip in strips)
    x = strips[0].int()
    assert x[2, :, 3].min() > x[0, :, 3].max() and x[0, :, 80].min() > x[2, :, 80].max()
    assert strips[3][:, :, :84].min() == 255  # No moment in the first frame.
    assert rays_picture(rays).shape[0] == 3


def test_rays_that_are_not_finite_or_zero_are_drawn() -> None:
    for value in (0.0, float("nan"), float("inf")):
        assert len(channel_pictures(torch.full((6, 1, 2, 3), value))) == 6


def test_plots_are_pictures(tmp_path: Path) -> None:
    cameras = walk(9)
    write_plot(tmp_path / "new/plot.png", cameras, plucker(cameras, (8, 12)))
    with Image.open(tmp_path / "new/plot.png") as image:
        assert image.format == "PNG" and image.width == 1200
    with pytest.raises(InputError, match=r"\.png or \.jpg"):
        write_plot(tmp_path / "plot.svg", cameras)
