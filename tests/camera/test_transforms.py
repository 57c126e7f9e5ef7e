"""``transforms.json`` as nerfstudio and DL3DV write it, and as it should not be."""

from __future__ import annotations

import copy
import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from nemo_cosmos.camera.rays import plucker
from nemo_cosmos.camera.track import match_images
from nemo_cosmos.camera.transforms import parse_transforms, read_transforms
from nemo_cosmos.errors import InputError
from tests.camera.pose_files import transforms, write_transforms
from tests.camera.test_rays import walk


def parsed(values: Any) -> Any:
    return parse_transforms(json.dumps(values), "scene/transforms.json")


def test_poses_come_back_in_opencv_axes_sorted_by_name(tmp_path: Path) -> None:
    cameras = walk(12)
    values = transforms(cameras)
    values["frames"] = values["frames"][::-1]
    (tmp_path / "t.json").write_text(json.dumps(values))
    track = read_transforms(tmp_path / "t.json")
    assert track.names == [f"images/frame_{i:05d}.png" for i in range(1, 13)]
    torch.testing.assert_close(track.cameras.poses, cameras.poses)
    torch.testing.assert_close(track.cameras.intrinsics, cameras.intrinsics)
    assert track.cameras.size == (64, 96) and not track.distorted and track.times is None


def test_numbers_in_names_count_as_numbers() -> None:
    values = transforms(walk(3))
    for frame, name in zip(values["frames"], ["images/10.png", "./images/9.png", "images\\100.png"], strict=True):
        frame["file_path"] = name
    assert parsed(values).names == ["images/9.png", "images/10.png", "images/100.png"]


def test_intrinsics_of_a_frame_go_before_the_common_ones_and_are_brought_to_one_size() -> None:
    values = transforms(walk(3))
    values["frames"][1] |= {"w": 192, "h": 128, "fl_x": 160.0, "fl_y": 150.0, "cx": 80.0, "cy": 72.0}
    values["frames"][2]["fl_x"] = 81.5
    intrinsics = parsed(values).cameras.intrinsics
    assert intrinsics.tolist() == [[80, 75, 40, 36], [80, 75, 40, 36], [81.5, 75, 40, 36]]


def test_missing_intrinsics_have_their_usual_meaning() -> None:
    values = transforms(walk(2))
    for name in ("fl_x", "fl_y", "cx", "cy"):
        del values[name]
    with pytest.raises(InputError, match=r"frame_00001.png: the key 'fl_x' is missing"):
        parsed(values)
    values["camera_angle_x"] = math.pi / 2
    torch.testing.assert_close(parsed(values).cameras.intrinsics[0], torch.tensor([48.0, 48, 48, 32]).double())


def test_three_rows_and_whole_numbers_are_a_matrix() -> None:
    values = transforms(walk(2))
    values["frames"][0]["transform_matrix"] = [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0]]
    assert parsed(values).cameras.poses[0].diagonal().tolist() == [1, -1, -1, 1]


@pytest.mark.parametrize("where", ["top", "frame"])
def test_distortion_is_said(where: str) -> None:
    values = transforms(walk(2))
    (values if where == "top" else values["frames"][1])["k1"] = -0.02
    assert parsed(values).distorted


def test_applied_transforms_change_no_ray() -> None:
    plain = transforms(walk(4))
    applied = copy.deepcopy(plain) | {"applied_transform": [[0, 1, 0, 2], [1, 0, 0, 0], [0, 0, -1, 0]]}
    turn = torch.tensor([[0.0, 0, 1, 2], [1, 0, 0, 0], [0, 1, 0, -3], [0, 0, 0, 1]])
    for frame in applied["frames"]:
        matrix = turn @ torch.tensor(frame["transform_matrix"])
        matrix[:3, 3] *= 0.4
        frame["transform_matrix"] = matrix.tolist()
    first, second = (plucker(parsed(values).cameras, (8, 12)) for values in (plain, applied))
    torch.testing.assert_close(first, second, atol=2e-6, rtol=0)


def test_without_a_size_the_image_beside_the_file_is_asked(tmp_path: Path) -> None:
    values = transforms(walk(2))
    del values["w"], values["h"]
    (tmp_path / "t.json").write_text(json.dumps(values))
    with pytest.raises(InputError, match="'w' and 'h' are missing"):
        read_transforms(tmp_path / "t.json")
    (tmp_path / "images").mkdir()
    Image.new("RGB", (96, 64)).save(tmp_path / "images/frame_00001.png")
    assert read_transforms(tmp_path / "t.json").cameras.size == (64, 96)
    assert read_transforms(tmp_path / "t.json", (32, 48)).cameras.size == (32, 48)
    values["frames"][0]["file_path"] = "images/frame_00001"
    (tmp_path / "t.json").write_text(json.dumps(values))
    assert read_transforms(tmp_path / "t.json").cameras.size == (64, 96)


def test_frames_with_times_of_their_own_are_in_that_order() -> None:
    values = transforms(walk(3))
    for frame, time in zip(values["frames"], [0.5, 0.0, 0.2], strict=True):
        frame["time"] = time
    track = parsed(values)
    assert track.names == ["images/frame_00002.png", "images/frame_00003.png", "images/frame_00001.png"]
    assert track.times is not None and track.times.tolist() == [0, 0.2, 0.5]


def test_images_are_matched_by_name_not_by_order() -> None:
    track = parsed(transforms(walk(4)))
    images = ["images_4/frame_00003.jpg", "images_4/frame_00009.jpg", "frame_00001.PNG"]
    assert match_images(track, images) == [2, None, 0]
    with pytest.raises(InputError, match=r"'a/frame_00001.png' and 'b/frame_00001.png' have the same pose"):
        match_images(track, ["a/frame_00001.png", "b/frame_00001.png"])


def test_names_without_a_suffix_and_with_points_are_matched() -> None:
    values = transforms(walk(2))
    values["frames"][0]["file_path"], values["frames"][1]["file_path"] = "./train/t_0.5", "./train/t_0.25"
    assert match_images(parsed(values), ["t_0.25.png", "t_0.5.JPG", "t_0.png"]) == [1, 0, None]


def test_folders_tell_equal_names_apart_where_they_can() -> None:
    values = transforms(walk(2))
    values["frames"][0]["file_path"], values["frames"][1]["file_path"] = "left/1.png", "right/1.png"
    track = parsed(values)
    assert match_images(track, ["right/1.png", "left/1.png"]) == [1, 0]
    with pytest.raises(InputError, match=r"'left/1.png' and 'right/1.png' both fit"):
        match_images(track, ["images/1.png"])


def change(path: str, value: Any) -> Any:
    """Of valid values, with the one at ``a.b.0`` replaced."""

    def changed(values: Any) -> Any:
        *parents, last = [int(part) if part.isdecimal() else part for part in path.split(".")]
        place = values
        for part in parents:
            place = place[part]
        place[last] = value
        return values

    return changed


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (change("frames.1.transform_matrix.0.3", math.nan), r"frame_00002.png: its pose has numbers that are not fin"),
        (change("frames.1.transform_matrix.0.3", 10**400), r"frame_00002.png: its pose has numbers that are not fin"),
        (change("frames.1.transform_matrix.0.0", 5.0), r"frame_00002.png: its pose is no rotation"),
        (change("frames.1.transform_matrix.3.3", 2.0), r"frame_00002.png: its pose has a last row"),
        (change("frames.1.transform_matrix.3", [0, 0, 1]), "3 or 4 rows of 4 numbers"),
        (change("frames.1.transform_matrix", [[0.0] * 4] * 5), "3 or 4 rows of 4 numbers"),
        (change("frames.1.transform_matrix", None), "3 or 4 rows of 4 numbers"),
        (change("frames.1.transform_matrix.0.0", "1"), "transform_matrix: expected a number, found str"),
        (change("frames.1.transform_matrix.0.0", True), "transform_matrix: expected a number, found bool"),
        (change("frames.1.file_path", "images/frame_00001.png"), "'images/frame_00001.png' is there twice"),
        (change("frames.1.file_path", "./images/frame_00001.png"), "'images/frame_00001.png' is there twice"),
        (change("frames.1.file_path", 3), r"frames\[1\]: expected the name of its image"),
        (change("frames.1", [1]), r"frames\[1\]: expected an object"),
        (change("frames", []), "expected a list of frames"),
        (change("frames", {"a": 1}), "expected a list of frames"),
        (change("camera_model", "OPENCV_FISHEYE"), "camera_model 'OPENCV_FISHEYE' is not read"),
        (change("frames.1.camera_model", "EQUIRECTANGULAR"), r"frame_00002.png: camera_model 'EQUIRECTANGULAR'"),
        (change("camera_model", 4), "camera_model '4'"),
        (change("w", 0), "pictures of 0 x 64"),
        (change("w", 1e30), "expected 1 to 65536"),
        (change("w", 96.5), "w=96.5, expected a whole number"),
        (change("h", math.inf), "h: expected a finite number"),
        (change("fl_x", -3.0), "fx, fy, cx, cy = -3, 75"),
        (change("fl_x", 0), "fx, fy, cx, cy = 0, 75"),
        (change("cx", "40"), "cx: expected a number, found str"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named(changed: Any, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        parsed(changed(transforms(walk(3))))
    assert str(caught.value).startswith("scene/transforms.json")


@pytest.mark.parametrize("content", ["", "[1]", "{", "[" * 100_000, '{"frames": [' + "[" * 100_000, "\udcff", '"x"'])
def test_what_is_no_json_of_that_form_is_refused(content: str, tmp_path: Path) -> None:
    (tmp_path / "t.json").write_bytes(content.encode("utf-8", "surrogateescape"))
    with pytest.raises(InputError, match=r"t\.json"):
        read_transforms(tmp_path / "t.json")


def test_a_mirrored_scene_is_refused(tmp_path: Path) -> None:
    cameras = walk(3)
    cameras.poses[:, :3, 0] *= -1
    with pytest.raises(InputError, match="mirrored"):
        read_transforms(write_transforms(tmp_path / "t.json", cameras))
