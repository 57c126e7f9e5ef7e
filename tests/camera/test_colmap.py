"""COLMAP's text and binary models say the same cameras, and damaged ones are refused."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
import torch

from nemo_cosmos.camera.colmap import read_colmap
from nemo_cosmos.camera.rays import Cameras
from nemo_cosmos.errors import InputError
from tests.camera.pose_files import write_colmap_binary, write_colmap_text
from tests.camera.test_rays import walk


def square(frames: int = 5) -> Cameras:
    cameras = walk(frames)
    return Cameras(cameras.poses, torch.tensor([[80.0, 80, 40, 36]]).repeat(frames, 1), cameras.size)


@pytest.mark.parametrize("model", ["PINHOLE", "SIMPLE_PINHOLE", "SIMPLE_RADIAL", "RADIAL", "OPENCV", "FULL_OPENCV"])
def test_text_models(model: str, tmp_path: Path) -> None:
    extra = {"SIMPLE_RADIAL": "0.01", "RADIAL": "0.01 0", "OPENCV": "0 0.1 0 0", "FULL_OPENCV": "0.1 0 0 0 0 0 0 0"}
    write_colmap_text(tmp_path / "sparse/0", square(), model, extra.get(model, ""))
    track = read_colmap(tmp_path)
    assert track.names == [f"frame {i:02d}.jpg" for i in range(1, 6)]
    torch.testing.assert_close(track.cameras.poses, square().poses)
    assert torch.equal(track.cameras.intrinsics, square().intrinsics) and track.cameras.size == (64, 96)
    assert track.distorted == (model in extra)


@pytest.mark.parametrize("model", [0, 1, 4])
def test_binary_models(model: int, tmp_path: Path) -> None:
    write_colmap_binary(tmp_path, square(), model)
    track = read_colmap(tmp_path)
    assert track.names == [f"frame {i:02d}.jpg" for i in range(1, 6)]
    torch.testing.assert_close(track.cameras.poses, square().poses)
    assert torch.equal(track.cameras.intrinsics, square().intrinsics) and track.distorted == (model == 4)


@pytest.mark.parametrize("binary", [False, True])
def test_fisheye_cameras_are_refused(binary: bool, tmp_path: Path) -> None:
    if binary:
        write_colmap_binary(tmp_path, square(), 5)
    else:
        write_colmap_text(tmp_path, square(), "OPENCV_FISHEYE", "0 0 0 0")
    with pytest.raises(InputError, match=r"frame 05.jpg: cameras of the model OPENCV_FISHEYE are not read"):
        read_colmap(tmp_path)


def test_every_cut_of_a_binary_model_is_refused(tmp_path: Path) -> None:
    write_colmap_binary(tmp_path, square(3))
    for name in ("cameras.bin", "images.bin"):
        whole = (tmp_path / name).read_bytes()
        for length in range(len(whole)):
            (tmp_path / name).write_bytes(whole[:length])
            with pytest.raises(InputError, match=name):
                read_colmap(tmp_path)
        (tmp_path / name).write_bytes(whole)


@pytest.mark.parametrize("count", [2**63, 10**9, 4])
@pytest.mark.parametrize("name", ["cameras.bin", "images.bin"])
def test_counts_are_held_to_the_size_of_the_file(name: str, count: int, tmp_path: Path) -> None:
    write_colmap_binary(tmp_path, square(3))
    whole = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(struct.pack("<Q", count) + whole[8:])
    with pytest.raises(InputError, match=f"{name} is damaged"):
        read_colmap(tmp_path)


@pytest.mark.parametrize(
    ("name", "old", "new", "message"),
    [
        ("cameras.txt", "PINHOLE", "PINHOLES", r"cameras.txt, line 2: unknown camera model 'PINHOLES'"),
        ("cameras.txt", "PINHOLE", "RADIAL", "RADIAL has 5 parameters, found 4"),
        ("cameras.txt", "96 64", "x 64", "not a line of a COLMAP model"),
        ("cameras.txt", "7 PINHOLE", "8 PINHOLE", r"frame 03.jpg: its camera 7 is not in the model"),
        ("images.txt", " 7 frame 02.jpg", " 7 frame 01.jpg", r"images.txt: the frame 'frame 01.jpg' is there twice"),
        ("images.txt", " 7 frame 02.jpg", "", "not a line of a COLMAP model"),
        ("images.txt", "4 0.", "4 5.", r"frame 02.jpg: quaternion of length 5"),
        ("images.txt", "4 0.", "4 nan 0.", "not a line of a COLMAP model|quaternion"),
    ],
)
def test_wrong_lines_are_named(name: str, old: str, new: str, message: str, tmp_path: Path) -> None:
    write_colmap_text(tmp_path, square(3))
    text = (tmp_path / name).read_text()
    assert old in text
    (tmp_path / name).write_text(text.replace(old, new))
    with pytest.raises(InputError, match=message):
        read_colmap(tmp_path)


def test_no_model_or_no_images(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="has no COLMAP model"):
        read_colmap(tmp_path)
    write_colmap_text(tmp_path, square(3))
    (tmp_path / "images.txt").write_text("# nothing\n")
    with pytest.raises(InputError, match="has no images"):
        read_colmap(tmp_path)
