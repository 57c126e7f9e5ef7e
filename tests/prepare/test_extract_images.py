"""Images cut from videos: which frames, how they look, and what a second call does."""

import shutil
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import pytest
from PIL import Image

from nemo_cosmos.data.images import read_image
from nemo_cosmos.data.video import read_frames
from nemo_cosmos.errors import InputError
from nemo_cosmos.prepare import extract_images as module
from nemo_cosmos.prepare.extract_images import extract_images
from tests.data.odd_videos import encode, is_upright, numbered, numbers, set_matrix, stored_for

TOOL = Path(__file__).parents[2] / "tools" / "extract_images_from_videos.py"
QUARTER_TURN = (0, 1, -1, 0)


def video(folder, name="a.mp4", count=25, first=0, **options):
    path = folder / "videos" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    return encode(path, [numbered(first + n) for n in range(count)], **options)


def images(folder):
    """{name: number that the picture shows}"""
    found = sorted((folder / "images").rglob("[!.]*"))
    return {path.name: numbers(read_image(path)[:, None])[0] for path in found}


def state(folder):
    return {p.name: (p.read_bytes(), p.stat().st_mtime_ns) for p in (folder / "images").glob("*.jpg")}


def test_every_nth_frame_under_the_names_of_upstream(tmp_path):
    video(tmp_path / "in"), video(tmp_path / "in", "b.mp4", 11, first=100)
    seen = []
    summary = extract_images(tmp_path / "in", tmp_path / "out", stride=10, on_video=lambda *at: seen.append(at))
    shown = {
        "a_00000000.jpg": 0,
        "a_00000001.jpg": 10,
        "a_00000002.jpg": 20,
        "b_00000000.jpg": 100,
        "b_00000001.jpg": 110,
    }
    assert images(tmp_path / "out") == shown
    assert (summary.made, summary.ready, summary.videos, summary.problems) == (5, 0, 2, [])
    assert seen == [(1, 2), (2, 2)]
    frame = read_frames(tmp_path / "in/videos/a.mp4", 10, 1)[:, 0]
    found = read_image(tmp_path / "out/images/a_00000001.jpg")
    assert (found.float() - frame.float()).abs().mean() < 1.5, "little is lost"
    with Image.open(tmp_path / "out/images/a_00000001.jpg") as image:
        assert image.format == "JPEG" and image.layer[1][1:3] == (1, 1), "colour at full resolution"


def test_videos_as_phones_leave_them(tmp_path):
    """Turned, of a variable rate, with wide pixels; portrait beside landscape."""
    turned = stored_for(numbered(0, 64, 96), QUARTER_TURN)
    folder = tmp_path / "videos"
    folder.mkdir()
    set_matrix(encode(folder / "turned.MOV", [turned] * 3), *QUARTER_TURN)
    times = [Fraction(t, 30) for t in (0, 1, 5, 6, 13)]
    encode(folder / "variable.mp4", [numbered(n) for n in range(5)], times=times)
    encode(folder / "wide.mp4", [numbered(n, 48) for n in range(2)], aspect=Fraction(2, 1))
    extract_images(tmp_path, tmp_path, stride=2)
    shapes = {p.name: tuple(read_image(p).shape) for p in (tmp_path / "images").glob("*.jpg")}
    assert shapes.pop("turned_00000000.jpg") == (3, 96, 64)
    assert is_upright(read_image(tmp_path / "images/turned_00000000.jpg").permute(1, 2, 0).numpy())
    assert [shapes[f"variable_0000000{n}.jpg"] for n in range(3)] == [(3, 64, 96)] * 3
    assert shapes["wide_00000000.jpg"] == (3, 64, 96)
    assert [images(tmp_path)[f"variable_0000000{n}.jpg"] for n in range(3)] == [0, 2, 4]


def test_a_second_call_makes_only_what_lacks(tmp_path):
    for name in ("a.mp4", "b.mp4", "c.mp4"):
        video(tmp_path, name)
    extract_images(tmp_path, tmp_path, stride=10)
    before = state(tmp_path)
    assert (extract_images(tmp_path, tmp_path, stride=10).made, state(tmp_path)) == (0, before)
    (tmp_path / "images/b_00000001.jpg").unlink()
    (tmp_path / "images/c_00000002.jpg").write_bytes(before["c_00000002.jpg"][0][:100])
    summary = extract_images(tmp_path, tmp_path, stride=10)
    after = state(tmp_path)
    assert {name: value[0] for name, value in after.items()} == {name: value[0] for name, value in before.items()}
    assert (summary.made, summary.ready) == (6, 3) and after["a_00000001.jpg"] == before["a_00000001.jpg"]


@pytest.mark.parametrize("change", ["stride", "shorter", "content"])
def test_what_has_changed_is_made_again(tmp_path, change):
    video(tmp_path), video(tmp_path, "b.mp4", first=50)
    extract_images(tmp_path, tmp_path, stride=5)
    before, stride = state(tmp_path), 5
    if change == "stride":
        stride, shown = 10, {0: 0, 1: 10, 2: 20}
    elif change == "shorter":
        video(tmp_path, count=6)
        shown = {0: 0, 1: 5}
    else:
        video(tmp_path, first=200)
        shown = {n: 200 + 5 * n for n in range(5)}
    extract_images(tmp_path, tmp_path, stride=stride)
    found = images(tmp_path)
    assert {int(name[2:-4]): number for name, number in found.items() if name[0] == "a"} == shown
    assert change == "stride" or all(state(tmp_path)[name] == before[name] for name in before if name[0] == "b")


def test_a_killed_call_leaves_nothing_half_and_is_gone_on_from(tmp_path, monkeypatch):
    video(tmp_path, "a.mp4"), video(tmp_path, "b.mp4")
    write, written = module._write, []

    def die_in_the_fourth(path, pixels):
        written.append(path)
        if len(written) == 5:
            (path.parent / f".{path.name}.x.tmp").write_bytes(b"half")
            raise SystemExit
        return write(path, pixels)

    monkeypatch.setattr(module, "_write", die_in_the_fourth)
    with pytest.raises(SystemExit):
        extract_images(tmp_path, tmp_path, stride=10)
    before = state(tmp_path)
    assert len(before) == 4
    monkeypatch.setattr(module, "_write", write)
    summary = extract_images(tmp_path, tmp_path, stride=10)
    assert (summary.made, summary.ready) == (3, 3)
    assert len(images(tmp_path)) == 6 and not list((tmp_path / "images").glob(".*.tmp"))
    assert all(state(tmp_path)[name] == before[name] for name in before if name[0] == "a")


def test_names_never_meet(tmp_path):
    for name, first in (("a.mp4", 0), ("a.mov", 40), ("day/a.mp4", 80), ("day_a.mp4", 120), ("a_00000000.mp4", 160)):
        video(tmp_path, name, 11, first)
    extract_images(tmp_path, tmp_path, stride=10)
    assert sorted(images(tmp_path).values()) == [n for first in (0, 40, 80, 120, 160) for n in (first, first + 10)]


def test_a_name_that_gets_shared_later_does_not_double_a_video(tmp_path):
    video(tmp_path, "a.mp4")
    extract_images(tmp_path, tmp_path, stride=10)
    video(tmp_path, "a.mkv", first=100)
    extract_images(tmp_path, tmp_path, stride=10)
    assert sorted(images(tmp_path).values()) == [0, 10, 20, 100, 110, 120]


def test_images_of_others_are_not_touched(tmp_path):
    video(tmp_path / "one"), video(tmp_path / "two", first=100)
    extract_images(tmp_path / "one", tmp_path / "out", stride=10)
    before = state(tmp_path / "out")
    with pytest.raises(InputError, match=r"holds images of .*one/videos/a\.mp4, .* of .*two/videos/a\.mp4"):
        extract_images(tmp_path / "two", tmp_path / "out", stride=10)
    (tmp_path / "mine/images").mkdir(parents=True)
    (tmp_path / "mine/images/a_00000007.jpg").write_bytes(b"mine")
    with pytest.raises(InputError, match=r"a_00000000\.jpg or others of that name, which this tool did not make"):
        extract_images(tmp_path / "one", tmp_path / "mine", stride=10)
    assert (tmp_path / "mine/images/a_00000007.jpg").read_bytes() == b"mine" and state(tmp_path / "out") == before
    shutil.move(tmp_path / "one", tmp_path / "moved")
    assert extract_images(tmp_path / "moved", tmp_path / "out", stride=10).made == 0


def test_videos_that_give_no_image_are_left_out_and_named(tmp_path):
    video(tmp_path, "whole.mp4")
    (tmp_path / "videos/empty.mp4").touch()
    (tmp_path / "videos/text.mp4").write_text("no video" * 100)
    summary = extract_images(tmp_path, tmp_path)
    assert len(summary.problems) == 2 and all(p.startswith("left out: ") for p in summary.problems)
    assert list(images(tmp_path)) == ["whole_00000000.jpg"]
    (tmp_path / "videos/whole.mp4").unlink()
    with pytest.raises(InputError, match=r"none of 2 videos gave an image: .*mp4"):
        extract_images(tmp_path, tmp_path)


def test_frames_before_damage_are_used(tmp_path):
    path = video(tmp_path, "cut.mkv", 60, options={"qp": "0", "threads": "1", "g": "10"})
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    extract_images(tmp_path, tmp_path, stride=5)
    found = images(tmp_path)
    assert 2 < len(found) < 12 and all(number == 5 * int(name[4:-4]) for name, number in found.items())


def test_mistakes_end_with_one_line(tmp_path):
    flags = ("--input_dataset_dir", tmp_path / "none", "--output_dataset_dir", tmp_path / "out")
    done = subprocess.run([sys.executable, TOOL, *map(str, flags)], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ") and "none/videos is missing" in done.stderr
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "out").exists()
    video(tmp_path, count=2)
    (tmp_path / "file").touch()
    for options, words in (({"stride": 0}, "stride=0, expected 1 to"), ({"out": tmp_path / "file"}, "file is a file")):
        with pytest.raises(InputError, match=words):
            extract_images(tmp_path, options.pop("out", tmp_path / "out"), **options)


def test_processes_give_the_same_images(tmp_path):
    for number in range(3):
        video(tmp_path, f"{number}.mp4", first=20 * number)
    extract_images(tmp_path, tmp_path / "one", stride=10)
    flags = ("--input_dataset_dir", tmp_path, "--output_dataset_dir", tmp_path / "two", "--stride", "10")
    done = subprocess.run(
        [sys.executable, TOOL, *map(str, flags), "--workers", "2"], capture_output=True, text=True, check=True
    )
    assert "9 images of 3 videos, 9 made now" in done.stdout
    one, two = state(tmp_path / "one"), state(tmp_path / "two")
    assert {name: value[0] for name, value in one.items()} == {name: value[0] for name, value in two.items()}
