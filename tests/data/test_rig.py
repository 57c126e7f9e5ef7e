"""Rig files: which cameras, in which order, under which ids."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from nemo_cosmos.data.rig import SHIPPED, find_rig, parse_rig, read_rig
from nemo_cosmos.errors import InputError


def test_rigs_of_the_package() -> None:
    assert {name: read_rig(name).view_ids for name in SHIPPED} == {
        "waymo": (4, 5, 0, 1, 2),
        "av7": (0, 1, 2, 3, 4, 5, 6),
        "av6": (0, 1, 2, 3, 4, 5),
    }
    waymo = read_rig("waymo")
    assert (waymo.front, waymo.captions, waymo.frames, waymo.fps) == ("pinhole_front", "front", 29, 10)
    assert (waymo.size, waymo.fit) == ((704, 1280), "stretch")
    assert waymo.folders[0] == "pinhole_side_left" and waymo.names[0] == "side left"
    assert [camera.frame_repeat for camera in read_rig("av6").cameras] == [0, 0, 0, 0, 10, 10]


@pytest.mark.parametrize("count", [1, 3, 5, 7, 12])
def test_the_order_of_the_file_is_the_order_of_the_views(tmp_path: Path, count: int) -> None:
    ids = [(5 * number + 2) % 12 for number in range(count)]
    (tmp_path / "rig.yaml").write_text(
        "cameras:\n" + "".join(f"  cam{n}: {view_id}\n" for n, view_id in reversed(list(enumerate(ids))))
    )
    rig = read_rig(tmp_path / "rig.yaml")
    assert rig.view_ids == tuple(reversed(ids)) and rig.folders[0] == rig.front == f"cam{count - 1}"
    assert rig.names == rig.folders and rig.captions == "front" and rig.size is None
    assert find_rig(tmp_path) == rig


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (None, "expected a mapping with 'cameras', found NoneType"),
        ({}, "'cameras' is missing"),
        ({"cameras": ["a", "b"]}, "'cameras' is missing or no mapping"),
        ({"cameras": {}}, "0 cameras, expected 1 to 12"),
        ({"cameras": {f"c{n}": n for n in range(13)}}, "13 cameras, expected 1 to 12"),
        ({"cameras": {"a": 3, "b": 3, "c": 1, "d": 3}}, r"share a view id \(a: 3, b: 3, d: 3\)"),
        ({"cameras": {"a": 12, "b": 1, "c": -1}}, "view ids a: 12, c: -1: expected 0 to 11"),
        ({"cameras": {"a": {"view_id": -3}}}, "a: view_id=-3: expected 0 to 11"),
        ({"cameras": {"a": {"name": "x"}}}, "the key 'view_id' is missing"),
        ({"cameras": {"a": {"view_id": 1, "lens": "wide"}}}, "cameras: a: unknown key 'lens'"),
        ({"cameras": {"a": {"view_id": 1, "name": ""}}}, "name: expected 1 to 1000 characters"),
        ({"cameras": {"a": True}}, "'True': expected a view id"),
        ({"cameras": {"a": "0"}}, "'0': expected a view id"),
        ({"cameras": {0: 0}}, "folder 0: names of folders are text"),
        ({"cameras": {"../a": 0}}, "'../a' is not the name"),
        ({"cameras": {"a\0": 0}}, "NUL"),
        ({"cameras": {"a": {"view_id": 0, "frame_repeat": 10}, "b": 1}}, "b have no frame_repeat"),
        ({"cameras": {"a": 0}, "views": 1, "camera": 2}, "unknown keys views, camera; expected cameras, front"),
        ({"cameras": {"a": 0}, "front": "b"}, "front='b' is none of its cameras: a"),
        ({"cameras": {"a": 0}, "captions": "side"}, "captions='side': expected 'front' or 'all'"),
        ({"cameras": {"a": 0}, "fit": "zoom"}, "fit='zoom'"),
        ({"cameras": {"a": 0}, "size": [704]}, "size="),
        ({"cameras": {"a": 0}, "frames": 0}, "frames=0"),
        ({"cameras": {"a": 0}, "fps": float("nan")}, "fps"),
    ],
)
def test_what_is_no_rig(values: Any, message: str) -> None:
    with pytest.raises(InputError, match=f"^r.yaml: .*{message}"):
        parse_rig(values, "r.yaml")


def test_files_that_are_no_rig(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="rig 'my_rig': no such file, nor one of av6, av7, waymo"):
        read_rig("my_rig")
    with pytest.raises(InputError, match=r"gone\.yaml does not exist"):
        read_rig(tmp_path / "gone.yaml")
    (tmp_path / "rig.yaml").write_text("cameras:\n  a: 1\n  a: 2\n")
    with pytest.raises(InputError, match=r"line 3.*'a' stands twice"):
        find_rig(tmp_path)
    (tmp_path / "rig.yaml").write_bytes(b"cameras: \xff")
    with pytest.raises(InputError, match="not UTF-8"):
        read_rig(tmp_path / "rig.yaml")


def test_waymo_is_found_by_its_folders(tmp_path: Path) -> None:
    (tmp_path / "videos" / "pinhole_front").mkdir(parents=True)
    assert find_rig(tmp_path) is None
    (tmp_path / "videos" / "pinhole_side_left").mkdir()
    assert find_rig(tmp_path) == read_rig("waymo")
    (tmp_path / "rig.yaml").write_text(yaml.safe_dump({"cameras": {"pinhole_front": 0}}))
    rig = find_rig(tmp_path)
    assert rig is not None and rig.folders == ("pinhole_front",)
