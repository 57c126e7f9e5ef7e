"""Trajectories by name and of files: where they begin, where they go, and how they are refused."""

from __future__ import annotations

import json
import logging
import math
from pathlib import Path

import pytest
import torch

from nemo_cosmos.camera.presets import EASINGS, PRESETS, parse_moves, preset_cameras
from nemo_cosmos.camera.rays import Cameras, fitted, normalise, plucker
from nemo_cosmos.camera.trajectories import read_trajectory
from nemo_cosmos.errors import InputError
from tests.camera.pose_files import transforms, write_colmap_binary, write_colmap_text, write_transforms
from tests.camera.test_rays import walk

SIZE = (64, 96)


def last(spec: str) -> tuple[list[float], list[float]]:
    """Centre and forward direction of the last camera."""
    pose = preset_cameras(spec, 9, SIZE).poses[-1]
    return pose[:3, 3].tolist(), pose[:3, 2].tolist()


@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.parametrize("ease", EASINGS)
def test_presets_start_at_the_identity_and_move_smoothly(name: str, ease: str) -> None:
    cameras = preset_cameras(f"{name},ease={ease}", 57, SIZE)
    assert len(cameras) == 57 and torch.equal(cameras.poses[0], torch.eye(4, dtype=torch.float64))
    steps = (cameras.poses[1:] - cameras.poses[:-1]).flatten(1).norm(dim=-1)
    assert steps.max() < 0.25 and (steps[1:] - steps[:-1]).abs().max() < 0.02
    again = preset_cameras(f"{name},ease={ease}", 57, SIZE)
    assert torch.equal(again.poses, cameras.poses) and torch.equal(again.intrinsics, cameras.intrinsics)
    moved = (cameras.poses[-1] - cameras.poses[0]).abs().max() + (
        cameras.intrinsics[-1] - cameras.intrinsics[0]
    ).abs().max()
    assert (moved == 0) == (name == "static")


def test_moves_go_where_their_names_say() -> None:
    """x is right, y down, z forwards."""
    for spec, place in {
        "dolly_in:2": [0, 0, 2], "dolly_out:2": [0, 0, -2], "truck_left:2": [-2, 0, 0], "truck_right:2": [2, 0, 0],
        "crane_up:2": [0, -2, 0], "crane_down:2": [0, 2, 0], "truck_left:-2": [2, 0, 0],
    }.items():  # fmt: skip
        centre, forward = last(spec)
        assert centre == pytest.approx(place) and forward == pytest.approx([0, 0, 1])
    sine, cosine = math.sin(0.5), math.cos(0.5)
    for spec, direction in {
        "pan_left:0.5": [-sine, 0, cosine], "pan_right:0.5": [sine, 0, cosine],
        "tilt_up:0.5": [0, -sine, cosine], "tilt_down:0.5": [0, sine, cosine],
    }.items():  # fmt: skip
        centre, forward = last(spec)
        assert centre == pytest.approx([0, 0, 0]) and forward == pytest.approx(direction)


@pytest.mark.parametrize(("side", "axis", "sign"), [("left", 0, -1), ("right", 0, 1), ("up", 1, -1), ("down", 1, 1)])
def test_orbits_keep_what_is_ahead_in_the_middle_and_at_its_distance(side: str, axis: int, sign: int) -> None:
    cameras = preset_cameras(f"orbit_{side}:40deg,distance=3", 9, SIZE)
    ahead = torch.tensor([0.0, 0.0, 3.0, 1.0], dtype=torch.float64)
    seen = torch.linalg.inv(cameras.poses) @ ahead
    torch.testing.assert_close(seen, ahead.expand(9, 4), atol=1e-9, rtol=0)
    assert float(cameras.poses[-1, axis, 3]) * sign == pytest.approx(3 * math.sin(math.radians(40)))


def test_rolls_lean_to_their_side() -> None:
    """The upper edge of a picture points to the side that the camera leans to."""
    for spec, side in (("roll_right:0.3", 1), ("roll_left:0.3", -1)):
        up = -preset_cameras(spec, 2, SIZE).poses[-1][:3, 1]
        assert up[0] * side == pytest.approx(math.sin(0.3))


def test_spirals_look_at_what_is_ahead() -> None:
    cameras = preset_cameras("spiral:0.4,turns=1.5,distance=2", 33, SIZE)
    seen = torch.linalg.inv(cameras.poses) @ torch.tensor([0.0, 0.0, 2.0, 1.0], dtype=torch.float64)
    assert seen[:, :2].abs().max() < 1e-9
    assert float(cameras.poses[-1, :3, 3].norm()) == pytest.approx(0.4)
    assert float(cameras.poses[-1, 0, 3]) == pytest.approx(-0.4)


def test_zooms_change_the_focal_length_alone() -> None:
    near, far = preset_cameras("zoom_in:0.5", 5, SIZE), preset_cameras("zoom_out:0.5", 5, SIZE)
    focal = near.intrinsics[0, 0]
    torch.testing.assert_close(
        near.intrinsics[-1], torch.stack([1.5 * focal, 1.5 * focal, focal * 0 + 48, focal * 0 + 32])
    )
    assert float(far.intrinsics[-1, 0]) == pytest.approx(float(focal) / 1.5)
    assert torch.equal(near.poses[-1], torch.eye(4, dtype=torch.float64))


def test_moves_at_once() -> None:
    assert [move.name for move in parse_moves("dolly_in:1e+0 + crane_up:+2,ease=in+static")] == [
        "dolly_in",
        "crane_up",
        "static",
    ]
    assert last("dolly_in:1+crane_up:2")[0] == pytest.approx([0, -2, 1])
    centre, forward = last("pan_right:90deg+dolly_in:1")
    assert centre == pytest.approx([1, 0, 0]) and forward == pytest.approx([1, 0, 0])


def test_degrees_and_the_field_of_view() -> None:
    assert parse_moves("pan_left:90deg")[0].amount == pytest.approx(math.pi / 2)
    wide, narrow = preset_cameras("static", 1, SIZE, fov=90), preset_cameras("static", 1, SIZE, fov=40)
    assert float(wide.intrinsics[0, 0]) == pytest.approx(48) and narrow.intrinsics[0, 0] > 100


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("orbit_lft:0.3", "unknown trajectory 'orbit_lft': did you mean orbit_left"),
        ("Dolly_in", "did you mean dolly_in"),
        ("xyzzy", "unknown trajectory 'xyzzy': expected one of static"),
        ("", "unknown trajectory ''"),
        ("dolly_in+", r"amount|'dolly_in\+'"),
        ("dolly_in:", "amount of dolly_in is ''"),
        ("dolly_in:far", "amount of dolly_in is 'far', expected a number .a length"),
        ("dolly_in:30deg", "amount of dolly_in is '30deg'"),
        ("pan_left:nan", "expected -1000 to 1000"),
        ("pan_left:1e9", "expected -1000 to 1000"),
        ("zoom_in:-0.5", "expected 0 to 1000"),
        ("static:1", "static has no amount"),
        ("dolly_in:1,distance=2", "dolly_in has no option 'distance'"),
        ("orbit_left:1,distance=0", "expected a positive length"),
        ("orbit_left:1,distance=nan", "distance is nan"),
        ("orbit_left:1,distance", "distance is ''"),
        ("orbit_left:1,ease=bouncy", "ease=bouncy, expected one of linear"),
        ("no/such/file.json", "no/such/file.json does not exist"),
        ("missing.csv", "missing.csv does not exist"),
        ("x" * 5000, "neither a name nor a path|unknown trajectory"),
    ],
)  # fmt: skip
def test_what_is_no_trajectory_is_named(spec: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_trajectory(spec, 9, SIZE)
    with pytest.raises(InputError, match="at least 1"):
        read_trajectory("static", 0, SIZE)


def test_every_kind_of_file_gives_the_same_rays(tmp_path: Path) -> None:
    """And they are those of the cameras brought to the clip's size as its conditioning image is."""
    whole = walk(12, (128, 192))
    cameras = Cameras(whole.poses, torch.tensor([[160.0, 160, 80, 72]]).repeat(12, 1), whole.size)
    write_transforms(tmp_path / "t.json", cameras)
    (tmp_path / "folder").mkdir()
    write_transforms(tmp_path / "folder/transforms.json", cameras)
    write_colmap_text(tmp_path / "text/sparse/0", cameras)
    write_colmap_binary(tmp_path / "binary", cameras)
    header = ",".join([*(f"m{r}{c}" for r in range(3) for c in range(4)), "fx,fy,cx,cy,width,height"])
    lines = [",".join(map(str, [*pose[:3].flatten().tolist(), 160, 160, 80, 72, 192, 128])) for pose in cameras.poses]
    (tmp_path / "p.csv").write_text("\n".join([header, *lines]))
    for fit in ("crop", "pad", "stretch"):
        expected = plucker(fitted(cameras[2:11], (64, 64), fit), (8, 8))
        for name in ("t.json", "folder", "text", "binary", "p.csv"):
            found = read_trajectory(tmp_path / name, 9, (64, 64), fit=fit, start=2)
            torch.testing.assert_close(plucker(found, (8, 8)), expected, atol=1e-5, rtol=0)


def test_times_of_a_file_become_the_clips_rate(tmp_path: Path) -> None:
    lines = [f"{time},{2 * time},0,0,1,0,0,0" for time in (0, 0.3, 1.0)]
    (tmp_path / "p.csv").write_text("\n".join(["time,x,y,z,qw,qx,qy,qz", *lines]))
    found = read_trajectory(tmp_path / "p.csv", 9, SIZE, fps=8)
    torch.testing.assert_close(found.poses[:, 0, 3], torch.arange(9).double() / 4)
    assert len(read_trajectory(tmp_path / "p.csv", 3, SIZE)) == 3


def test_too_few_poses_are_refused(tmp_path: Path) -> None:
    path = write_transforms(tmp_path / "t.json", walk(9))
    with pytest.raises(InputError, match="has 9 poses, but the clip has 57 frames"):
        read_trajectory(path)
    with pytest.raises(InputError, match="has 9 poses, but the clip has 9 frames from pose 1 on"):
        read_trajectory(path, 9, SIZE, start=1)
    for frames, start in ((0, 0), (3, -1)):
        with pytest.raises(InputError, match="expected at least"):
            read_trajectory(path, frames, SIZE, start=start)


def test_distortion_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "t.json").write_text(json.dumps(transforms(walk(9)) | {"k1": 0.1}))
    with caplog.at_level(logging.WARNING, "nemo_cosmos"):
        read_trajectory(tmp_path / "t.json", 9, SIZE)
    assert "t.json names lens distortion" in caplog.text


def test_files_of_other_kinds_are_refused(tmp_path: Path) -> None:
    (tmp_path / "p.txt").write_text("1")
    for path in (tmp_path / "p.txt", tmp_path):
        with pytest.raises(InputError, match="expected"):
            read_trajectory(path, 9, SIZE)


def test_a_folder_with_the_name_of_a_preset_does_not_hide_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "spiral").mkdir()
    assert len(read_trajectory("spiral", 9, SIZE)) == 9
    with pytest.raises(InputError, match="expected a transforms"):
        read_trajectory("./spiral/", 9, SIZE)


def test_networks_see_lengths_divided_by_the_trajectorys_size() -> None:
    """So the length of a move along a line is not told; that of an orbit is, by how far the camera turns."""
    rays = {
        spec: plucker(preset_cameras(spec, 9, SIZE), (8, 12)) for spec in ("dolly_in:1", "dolly_in:2", "orbit_left:1")
    }
    torch.testing.assert_close(rays["dolly_in:1"], rays["dolly_in:2"])
    far, _ = normalise(preset_cameras("orbit_left:1,distance=7", 9, SIZE))
    torch.testing.assert_close(plucker(far, (8, 12)), rays["orbit_left:1"], atol=1e-6, rtol=0)
