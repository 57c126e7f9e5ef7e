"""`sample-data waymo`: the folders of the Waymo conversion, views that agree, rigs of any number."""

from __future__ import annotations

import json
import re
import sys
from itertools import pairwise

import numpy as np
import pytest

from nemo_cosmos import cli
from nemo_cosmos.data.rig import find_rig
from nemo_cosmos.data.video import probe, read_frames
from nemo_cosmos.errors import InputError
from nemo_cosmos.prepare.sample_data import SampleDataSettings, render_sample_data
from nemo_cosmos.prepare.sample_rig import RigDataSettings, mounted_cameras, render_rig_data
from nemo_cosmos.scenes.cameras import Pinhole
from nemo_cosmos.scenes.street import draw_street
from tests.scenes.rays import bilinear, shared_points

TINY = RigDataSettings(clips=1, size=(48, 72), side_size=(34, 72), frames=3, seed=5)
WAYMO = ["pinhole_front", "pinhole_front_left", "pinhole_front_right", "pinhole_side_left", "pinhole_side_right"]


@pytest.fixture(scope="module")
def rendered(tmp_path_factory):
    path = tmp_path_factory.mktemp("waymo") / "w"
    return path, [video.relative_to(path).as_posix() for video in render_rig_data(path, TINY)]


def files(path):
    return {file.relative_to(path).as_posix(): file for file in path.rglob("*") if file.is_file()}


def test_folders_are_those_of_the_conversion(rendered):
    path, (video,) = rendered
    clip = re.fullmatch(r"videos/pinhole_front/(\d{15,20}_\d+_000_\d+_000)\.mp4", video)[1]
    expected = {f"videos/{camera}/{clip}.mp4" for camera in WAYMO}
    expected |= {f"metas/{camera}/{clip}.txt" for camera in WAYMO} | {f"cameras/{clip}.json", "sample_data.json"}
    assert set(files(path)) == expected
    for camera in WAYMO:
        info = probe(path / f"videos/{camera}/{clip}.mp4")
        height = 34 if "side" in camera else 48
        assert (info.frames, info.height, info.width, info.fps) == (3, height, 72, pytest.approx(10))
        caption = (path / f"metas/{camera}/{clip}.txt").read_text()
        assert caption.startswith("A street seen from a moving car") and caption.endswith(".\n")
    assert find_rig(path).folders and set(find_rig(path).folders) == set(WAYMO)


def test_neighbours_show_the_same_points_in_the_same_colours(rendered):
    path, (video,) = rendered
    truth = json.loads(next((path / "cameras").iterdir()).read_text())["cameras"]
    street = draw_street(np.random.default_rng((5, 0, 0)), 3, 10)
    left_to_right = [WAYMO[index] for index in (3, 1, 0, 2, 4)]
    for first, second in pairwise(left_to_right):
        views = []
        for name in (first, second):
            values = dict(truth[name])
            views.append((np.array(values.pop("poses"))[2], Pinhole(**values)))
        pairs = [(camera, pose) for pose, camera in views]
        here, there, points, _ = shared_points(street.scene, *pairs, time=street.times[2])
        assert len(points) > 30, (first, second)
        pictures = [
            read_frames(path / video.replace("pinhole_front", name))[:, 2].permute(1, 2, 0).numpy()
            for name in (first, second)
        ]
        colours = bilinear(pictures[0], *here.T), bilinear(pictures[1], *there.T)
        assert np.median(np.abs(colours[0] - colours[1])) < 12, (first, second)


def test_the_cameras_move_together_and_look_as_their_names_say(rendered):
    path, _ = rendered
    truth = json.loads(next((path / "cameras").iterdir()).read_text())["cameras"]
    poses = {name: np.array(truth[name]["poses"]) for name in WAYMO}
    for frame in range(3):
        relative = [np.linalg.inv(poses["pinhole_front"][frame]) @ poses[name][frame] for name in WAYMO]
        first = [np.linalg.inv(poses["pinhole_front"][0]) @ poses[name][0] for name in WAYMO]
        assert np.allclose(relative, first, atol=1e-9)
        ahead = {name: pose[:3, 2] for name, pose in zip(WAYMO, relative, strict=True)}
        half = np.sqrt(0.5)
        assert np.allclose(ahead["pinhole_front_left"], (-half, 0, half), atol=1e-9)
        assert np.allclose(ahead["pinhole_side_right"], (1, 0, 0), atol=1e-9)
    assert np.linalg.norm(poses["pinhole_front"][2, :3, 3] - poses["pinhole_front"][0, :3, 3]) > 0.5


def test_same_seed_same_bytes_and_a_second_call_fills_gaps(rendered, tmp_path):
    path, _ = rendered
    list(render_rig_data(tmp_path / "b", TINY))
    before = {name: (file.read_bytes(), file.stat().st_mtime_ns) for name, file in files(tmp_path / "b").items()}
    assert {name: content for name, (content, _) in before.items()} == {
        name: file.read_bytes() for name, file in files(path).items()
    }
    lost = next(name for name in before if name.startswith("videos/pinhole_side_left"))
    (tmp_path / "b" / lost).unlink()
    list(render_rig_data(tmp_path / "b", TINY))
    after = {name: (file.read_bytes(), file.stat().st_mtime_ns) for name, file in files(tmp_path / "b").items()}
    assert {name: content for name, (content, _) in after.items()} == {
        name: content for name, (content, _) in before.items()
    }
    videos = [name for name in before if name.startswith("videos/") and name != lost]
    assert len(videos) == 4 and all(after[name] == before[name] for name in videos)


@pytest.mark.parametrize("cameras", [1, 3, 8, 12])
def test_rigs_of_any_number(tmp_path, cameras):
    settings = RigDataSettings(clips=1, held_out=1, size=(16, 24), frames=1, cameras=cameras, supersample=1)
    videos = [video.relative_to(tmp_path).parts[0] for video in render_rig_data(tmp_path, settings)]
    assert videos == ["train", "held_out"]
    for part in videos:
        rig = find_rig(tmp_path / part)
        assert len(rig.cameras) == cameras and rig.front == "front" and sorted(rig.view_ids) == list(range(cameras))
        assert {folder.name for folder in (tmp_path / part / "videos").iterdir()} == set(rig.folders)
        assert (rig.frames, rig.fps, rig.size) == (1, 10, (16, 24))
    looks = sorted(
        np.degrees(np.arctan2(view.mount[1, 2], view.mount[0, 2])) % 360 for view in mounted_cameras(settings)
    )
    gaps = np.diff([*looks, looks[0] + 360])
    assert np.isclose(np.sort(gaps)[:-1], min(45, 360 / cameras)).all()


def test_other_settings_and_other_kinds_are_refused(rendered, tmp_path):
    path, _ = rendered
    with pytest.raises(InputError, match=r"side_size=\[34, 72\], not None"):
        list(render_rig_data(path, RigDataSettings(clips=1, size=(48, 72), frames=3, seed=5)))
    with pytest.raises(InputError, match="kind=waymo, not shapes"):
        list(render_sample_data(path, SampleDataSettings(clips=1, size=(48, 72), frames=3, seed=5)))
    list(render_sample_data(tmp_path, SampleDataSettings(clips=1, held_out=0, size=(16, 16), frames=2)))
    with pytest.raises(InputError, match="kind=shapes, not waymo"):
        list(render_rig_data(tmp_path, TINY))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--clips=0"], "--clips"),
        (["--clips=9999999999999"], "--clips"),
        (["--held-out=-1"], "--held-out"),
        (["--cameras=0"], "--cameras"),
        (["--cameras=13"], "--cameras"),
        (["--cameras=2", "--side-size=16x16"], "--side-size"),
        (["--size=15x16"], "--size"),
        (["--side-size=16x17"], "--side-size"),
        (["--side-size=x"], "HEIGHTxWIDTH"),
        (["--frames=0"], "--frames"),
        (["--fps=nan"], "--fps"),
        (["--supersample=0"], "--supersample"),
        (["--seed=-1"], "--seed"),
        (["--scenes=3"], "--scenes"),
        ([], "argument"),
    ],
)
def test_wrong_options_end_in_one_line(tmp_path, monkeypatch, capsys, words, said):
    monkeypatch.chdir(tmp_path)
    out = ["out"] if words else ["out", "more"]
    monkeypatch.setattr(sys, "argv", ["nemo-cosmos", "sample-data", "waymo", *out, *words])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    lines = capsys.readouterr().err.strip().splitlines()
    assert ended.value.code == 2 and len(lines) == 1 and lines[0].startswith("error: ") and said in lines[0]
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("words", [["waymoo", "out"], ["out", "waymo"], ["--clips=2", "waymo", "out"]])
def test_a_kind_that_is_none_or_not_first_is_named(tmp_path, monkeypatch, capsys, words):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["nemo-cosmos", "sample-data", *words])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert ended.value.code == 2 and line.startswith("error: ") and "waymo or dl3dv" in line
    assert not list(tmp_path.iterdir())


def test_a_folder_that_is_called_like_a_kind(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = ["sample-data", "./waymo", "--clips=1", "--held-out=0", "--size=16x16", "--frames=2"]
    monkeypatch.setattr(sys, "argv", ["nemo-cosmos", *words])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 0 and (tmp_path / "waymo/train/videos/train_00000.mp4").is_file()


def test_the_command_says_what_it_wrote(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    words = ["sample-data", "waymo", "datasets/waymo", "--clips=1", "--size=16x24", "--frames=1", "--supersample=1"]
    monkeypatch.setattr(sys, "argv", ["nemo-cosmos", *words])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 0
    assert "1 clips in datasets/waymo: 5 cameras, 1 frames of 16x24 at 10 fps" in capsys.readouterr().out
