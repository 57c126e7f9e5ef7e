"""`sample-data dl3dv`: zips with pictures and poses as DL3DV has them."""

from __future__ import annotations

import io
import json
import pickle
import sys
import zipfile

import numpy as np
import pytest
from PIL import Image

from nemo_cosmos import cli
from nemo_cosmos.errors import InputError
from nemo_cosmos.prepare import sample_dl3dv
from nemo_cosmos.prepare.sample_dl3dv import RoomDataSettings, render_room_data
from nemo_cosmos.scenes.cameras import Pinhole
from nemo_cosmos.scenes.room import draw_room
from tests.scenes.rays import bilinear, ray, shared_points

TINY = RoomDataSettings(scenes=2, trajectories_per_scene=2, held_out=1, size=(27, 48), frames=4, seed=3)
OPENGL = np.diag([1.0, -1.0, -1.0, 1.0])


@pytest.fixture(scope="module")
def rendered(tmp_path_factory):
    path = tmp_path_factory.mktemp("rooms") / "d"
    return path, list(render_room_data(path, TINY))


def opened(file):
    """Names in a zip, pictures by name, and transforms.json."""
    with zipfile.ZipFile(file) as packed:
        assert packed.testzip() is None
        names = packed.namelist()
        pictures = {name: Image.open(io.BytesIO(packed.read(name))) for name in names if name.endswith(".png")}
        return names, pictures, json.loads(packed.read(next(name for name in names if name.endswith(".json"))))


def test_zips_are_laid_out_as_those_of_the_dataset(rendered):
    path, scenes = rendered
    assert [scene.relative_to(path).parts[:2] for scene in scenes] == [("train", "1K")] * 4 + [("held_out", "1K")] * 2
    assert len({scene.stem for scene in scenes}) == 6
    for scene in scenes:
        names, pictures, transforms = opened(scene)
        assert scene.suffix == ".zip" and len(scene.stem) == 64 and int(scene.stem, 16) >= 0
        images = [f"{scene.stem}/images/frame_{k:05d}.png" for k in range(1, 5)]
        assert names == [*images, f"{scene.stem}/transforms.json"]
        assert all(picture.size == (48, 27) and picture.mode == "RGB" for picture in pictures.values())
        assert (transforms["w"], transforms["h"], transforms["camera_model"]) == (48, 27, "OPENCV")
        assert transforms["fl_x"] == transforms["fl_y"] > 0 and (transforms["cx"], transforms["cy"]) == (24, 13.5)
        assert [transforms[name] for name in ("k1", "k2", "p1", "p2")] == [0] * 4
        assert [frame["file_path"] for frame in transforms["frames"]] == [name.split("/", 1)[1] for name in images]
        assert [frame["colmap_im_id"] for frame in transforms["frames"]] == [1, 2, 3, 4]
        poses = np.array([frame["transform_matrix"] for frame in transforms["frames"]])
        assert poses.shape == (4, 4, 4) and np.allclose(np.linalg.det(poses[:, :3, :3]), 1)
        assert (poses[:, 2, 1] > 0.5).all()  # The cameras' y axes point up, as OpenGL has them.


def test_captions_are_by_scene_and_chunk_in_both_forms(rendered):
    path, scenes = rendered
    for part in ("train", "held_out"):
        captions = json.loads((path / part / "captions.json").read_text())
        assert set(captions) == {f"{scene.stem}/0" for scene in scenes if part in scene.parts}
        assert pickle.loads((path / part / "captions.pickle").read_bytes()) == captions
        assert all(caption.startswith("A room with ") for caption in captions.values())
    known = {part: json.loads((path / part / "trajectories.json").read_text()) for part in ("train", "held_out")}
    assert [entry["room"] for entry in known["train"].values()] == [0, 0, 1, 1]
    assert [entry["room"] for entry in known["held_out"].values()] == [0, 1]


def test_points_of_a_scene_lie_on_the_rays_that_its_poses_give(rendered):
    _, scenes = rendered
    for scene in (scenes[0], scenes[3]):
        _, pictures, transforms = opened(scene)
        camera = Pinhole(27, 48, *(transforms[name] for name in ("fl_x", "fl_y", "cx", "cy")))
        room = draw_room(np.random.default_rng((3, 0 if scene == scenes[0] else 1)))
        frames = [transforms["frames"][k] for k in (0, 2)]
        poses = [np.array(frame["transform_matrix"]) @ OPENGL for frame in frames]
        here, there, points, _ = shared_points(room.scene, (camera, poses[0]), (camera, poses[1]))
        assert len(points) > 200
        for k in range(0, len(points), 25):
            for pose, pixel in zip(poses, (here[k], there[k]), strict=True):
                away = points[k] - pose[:3, 3]
                assert np.linalg.norm(np.cross(away, ray(camera, pose, *pixel))) < 1e-4 * np.linalg.norm(away)
        shown = [np.asarray(pictures[f"{scene.stem}/{frame['file_path']}"]) for frame in frames]
        colours = bilinear(shown[0], *here.T), bilinear(shown[1], *there.T)
        assert np.median(np.abs(colours[0] - colours[1])) < 8


@pytest.mark.parametrize("packing", ["flat", "folder"])
def test_other_packings_hold_the_same_files(rendered, tmp_path, packing):
    _, scenes = rendered
    settings = RoomDataSettings(scenes=2, trajectories_per_scene=2, size=(27, 48), frames=4, seed=3, packing=packing)
    found = list(render_room_data(tmp_path, settings))
    assert [scene.relative_to(tmp_path).parts[0] for scene in found] == ["1K"] * 4
    assert [scene.name.removesuffix(".zip") for scene in found] == [scene.stem for scene in scenes[:4]]
    with zipfile.ZipFile(scenes[0]) as packed:
        expected = {name.split("/", 1)[1]: packed.read(name) for name in packed.namelist()}
    if packing == "folder":
        contents = {p.relative_to(found[0]).as_posix(): p.read_bytes() for p in found[0].rglob("*") if p.is_file()}
    else:
        with zipfile.ZipFile(found[0]) as packed:
            contents = {name: packed.read(name) for name in packed.namelist()}
    assert contents == expected


def test_pictures_may_be_smaller_than_transforms_say(tmp_path):
    settings = RoomDataSettings(scenes=1, size=(27, 48), frames=2, image_scale=4)
    names, pictures, transforms = opened(next(iter(render_room_data(tmp_path, settings))))
    assert [name.split("/")[1] for name in names] == ["images_4", "images_4", "transforms.json"]
    assert {picture.size for picture in pictures.values()} == {(48, 27)}
    assert (transforms["w"], transforms["h"], transforms["cx"], transforms["cy"]) == (192, 108, 96, 54)
    assert transforms["frames"][0]["file_path"] == "images/frame_00001.png"


def test_same_seed_same_bytes_and_a_second_call_fills_gaps(rendered, tmp_path):
    _, scenes = rendered
    twins = list(render_room_data(tmp_path / "b", TINY))
    assert [twin.read_bytes() for twin in twins] == [scene.read_bytes() for scene in scenes]
    before = {twin: twin.stat().st_mtime_ns for twin in twins}
    twins[1].unlink()
    assert list(render_room_data(tmp_path / "b", TINY)) == twins
    assert twins[1].read_bytes() == scenes[1].read_bytes()
    assert all(twin.stat().st_mtime_ns == before[twin] for twin in twins if twin != twins[1])
    other = RoomDataSettings(scenes=2, trajectories_per_scene=2, held_out=1, size=(27, 48), frames=4, seed=4)
    with pytest.raises(InputError, match="seed=3, not 4"):
        list(render_room_data(tmp_path / "b", other))


@pytest.mark.parametrize("packing", ["zip", "folder"])
def test_an_interrupted_scene_leaves_nothing_under_its_name(tmp_path, monkeypatch, packing):
    settings = RoomDataSettings(scenes=1, size=(16, 16), frames=3, packing=packing)
    monkeypatch.setattr(sample_dl3dv, "_transforms", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        list(render_room_data(tmp_path, settings))
    assert not list((tmp_path / "1K").iterdir())


def test_kinds_of_ways_take_turns(tmp_path):
    settings = RoomDataSettings(scenes=1, trajectories_per_scene=6, held_out=2, size=(16, 16), frames=2)
    list(render_room_data(tmp_path, settings))
    known = {part: json.loads((tmp_path / part / "trajectories.json").read_text()) for part in ("train", "held_out")}
    assert len({entry["kind"] for entry in known["train"].values()}) == 6
    assert len({entry["kind"] for entry in known["held_out"].values()}) == 2


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--scenes=0"], "--scenes"),
        (["--trajectories-per-scene=0"], "--trajectories-per-scene"),
        (["--held-out=-1"], "--held-out"),
        (["--size=8x16"], "--size"),
        (["--frames=1"], "--frames"),
        (["--image-scale=17"], "--image-scale"),
        (["--packing=tar"], "--packing"),
        (["--supersample=9"], "--supersample"),
        (["--seed=-1"], "--seed"),
        (["--cameras=3"], "--cameras"),
    ],
)
def test_wrong_options_end_in_one_line(tmp_path, monkeypatch, capsys, words, said):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["nemo-cosmos", "sample-data", "dl3dv", "out", *words])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    lines = capsys.readouterr().err.strip().splitlines()
    assert ended.value.code == 2 and len(lines) == 1 and lines[0].startswith("error: ") and said in lines[0]
    assert not list(tmp_path.iterdir())
