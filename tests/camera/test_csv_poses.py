"""Tables of poses, and poses at other times than the table's."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from nemo_cosmos.camera.csv_poses import MATRIX, read_csv_poses
from nemo_cosmos.camera.rays import Cameras, swap_axes
from nemo_cosmos.camera.resample import at_rate, frames_at_rate
from nemo_cosmos.camera.rotations import about_axis, from_quaternion, to_quaternion
from nemo_cosmos.errors import InputError
from tests.camera.test_rays import random_rotation, walk


def write(path: Path, header: str, lines: list[list[object]], before: str = "") -> Path:
    path.write_text(before + "\n".join([header, *(",".join(map(str, line)) for line in lines)]) + "\n")
    return path


def quaternion_lines(cameras: Cameras) -> list[list[object]]:
    quaternions = to_quaternion(cameras.poses[:, :3, :3]).tolist()
    return [[*t, *q] for t, q in zip(cameras.poses[:, :3, 3].tolist(), quaternions, strict=True)]


def test_quaternions_in_the_order_of_the_lines(tmp_path: Path) -> None:
    lines = [[f"shot {9 - i}", *line] for i, line in enumerate(quaternion_lines(walk()))]
    track = read_csv_poses(write(tmp_path / "p.csv", "frame, x,y,z,qw,qx,qy,qz", lines), (64, 96))
    torch.testing.assert_close(track.cameras.poses, walk().poses)
    assert track.names[:2] == ["shot 9", "shot 8"] and track.times is None
    assert track.cameras.intrinsics[0].tolist() == pytest.approx([48, 48, 48, 32])  # 90 degrees


@pytest.mark.parametrize("axes", ["opencv", "OpenGL"])
def test_matrices_in_the_axes_that_the_file_names(axes: str, tmp_path: Path) -> None:
    poses = walk().poses if axes == "opencv" else swap_axes(walk().poses)
    lines: list[list[object]] = [[*pose[:3].flatten().tolist(), 80, 75, 40, 36, 96, 64] for pose in poses]
    header = ",".join([*MATRIX, "fl_x", "fl_y", "cx", "cy", "w", "h"])
    track = read_csv_poses(write(tmp_path / "p.csv", header, lines, f"# made by hand\n# axes: {axes}\n\n"))
    torch.testing.assert_close(track.cameras.poses, walk().poses)
    assert torch.equal(track.cameras.intrinsics, walk().intrinsics) and track.cameras.size == (64, 96)


def test_irregular_times_become_a_steady_rate(tmp_path: Path) -> None:
    """A camera that turns and moves evenly, seen at uneven times, is where it should be at even ones."""
    times = torch.tensor([0.0, 0.35, 0.4, 1.1, 1.7, 2.0]).double()

    def at(t: torch.Tensor) -> torch.Tensor:
        poses = torch.eye(4, dtype=torch.float64).repeat(len(t), 1, 1)
        poses[:, :3, :3] = random_rotation(2) @ about_axis(1, 1.3 * t)
        poses[:, 0, 3], poses[:, 2, 3] = 2 * t, 1 - t
        return poses

    cameras = Cameras(at(times), torch.tensor([[80.0, 75, 40, 36]]).repeat(6, 1), (64, 96))
    lines = [[1.7e9 + t, *line] for t, line in zip(times.tolist(), quaternion_lines(cameras), strict=True)]
    lines.reverse()
    track = read_csv_poses(write(tmp_path / "p.csv", "timestamp,tx,ty,tz,qw,qx,qy,qz", lines), (64, 96))
    steady = at_rate(track, 10)
    assert len(steady) == 21 and steady.times is not None
    torch.testing.assert_close(steady.times, 1.7e9 + torch.arange(21).double() / 10)
    torch.testing.assert_close(steady.cameras.poses, at(torch.arange(21).double() / 10), atol=1e-6, rtol=0)
    assert frames_at_rate(times, 2) == [0, 2, 3, 4, 5]
    assert frames_at_rate(times[:1], 2) == [0]
    with pytest.raises(InputError, match="too few for 10 fps"):
        frames_at_rate(times, 10)


@pytest.mark.parametrize("fps", [0, -1, math.nan, math.inf, 1e9])
def test_rates_that_are_none(fps: float) -> None:
    with pytest.raises(InputError, match="frame"):
        frames_at_rate(torch.tensor([0.0, 1.0]), fps)


def test_a_rate_needs_times(tmp_path: Path) -> None:
    track = read_csv_poses(write(tmp_path / "p.csv", "x,y,z,qw,qx,qy,qz", quaternion_lines(walk())), (64, 96))
    with pytest.raises(InputError, match="column time"):
        at_rate(track, 24)


@pytest.mark.parametrize("angle", [0.0, 1e-9, 1.0, 3.0, math.pi, -2.0])
def test_quaternions_and_back(angle: float) -> None:
    for axis in range(3):
        turn = random_rotation(axis)[None] @ about_axis(axis, torch.tensor([angle]))
        torch.testing.assert_close(from_quaternion(to_quaternion(turn)), turn, atol=1e-12, rtol=0)


GOOD = ["0", "0", "0", "1", "0", "0", "0"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "names of columns"),
        ("x,y,z,qw,qx,qy,qz\n", "a line for each frame"),
        ("x,y,z,qw,qx,qy\n1,2,3,1,0,0\n", "'qz' is missing"),
        ("x,y,z,qw,qx,qy,qz,roll\n0,0,0,1,0,0,0,0\n", "unknown column 'roll'"),
        ("x,x,y,z,qw,qx,qy,qz\n0,0,0,0,1,0,0,0\n", "'x' is there twice"),
        ("frame\n1\n", "expected columns x, y, z"),
        ("x,y,z,qw,qx,qy,qz,fx\n0,0,0,1,0,0,0,50\n", "'fy' is missing"),
        ("x,y,z,qw,qx,qy,qz\n0,0,0,1,0,0\n", "line 2: 6 values, but 7 columns"),
        ("x,y,z,qw,qx,qy,qz\n0,0,0,1,0,0,0\n0,0,far,1,0,0,0\n", "line 3: z is 'far'"),
        ("x,y,z,qw,qx,qy,qz\n0,0,0,0,0,0,0\n", "line 2: quaternion of length 0"),
        ("x,y,z,qw,qx,qy,qz\n0,0,0,nan,0,0,0\n", "line 2: quaternion of length nan"),
        ("x,y,z,qw,qx,qy,qz\n0,inf,0,1,0,0,0\n", "line 2: its pose has numbers that are not finite"),
        ("time,x,y,z,qw,qx,qy,qz\n0,0,0,0,1,0,0,0\n0,0,0,0,1,0,0,0\n", "line 2 and line 3 have the same time"),
        ("time,x,y,z,qw,qx,qy,qz\nnan,0,0,0,1,0,0,0\n", "time nan"),
        ("width,height,x,y,z,qw,qx,qy,qz\nnan,3,0,0,0,1,0,0,0\n", "whole numbers of pixels"),
        ("# axes: nerf\nx,y,z,qw,qx,qy,qz\n0,0,0,1,0,0,0\n", "line 1: axes 'nerf'"),
        (",".join(MATRIX) + "\n" + "1," * 11 + "1\n", "its pose is no rotation"),
        ('x,y,z,qw,qx,qy,qz\n"0,0,0,1,0,0,0\n', "line 2: 1 values"),
    ],
)
def test_wrong_tables_are_named(content: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "p.csv").write_text(content)
    with pytest.raises(InputError, match=message) as caught:
        read_csv_poses(tmp_path / "p.csv", (64, 96))
    assert "p.csv" in str(caught.value)


def test_a_size_must_come_from_somewhere(tmp_path: Path) -> None:
    (tmp_path / "p.csv").write_text("x,y,z,qw,qx,qy,qz\n0,0,0,1,0,0,0\n")
    with pytest.raises(InputError, match="width and height are missing"):
        read_csv_poses(tmp_path / "p.csv")
    for fov in (0.0, 180.0, math.nan):
        with pytest.raises(InputError, match="field of view"):
            read_csv_poses(tmp_path / "p.csv", (64, 96), fov)
