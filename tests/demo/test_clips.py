"""Windows that are trained on and windows that are held out, of whatever folder a user has."""

from __future__ import annotations

import dataclasses
import struct
from pathlib import Path

import pytest
from PIL import Image

from nemo_cosmos.data.video import probe, read_frames
from nemo_cosmos.demo.clips import Cut, cut_clips, read_cut
from nemo_cosmos.demo.plan import plan_clips
from nemo_cosmos.demo.sizes import SIZES
from nemo_cosmos.errors import InputError
from tests.demo.standin import LEVELS, write_clip

SIZE = dataclasses.replace(SIZES["full"], area=(32, 48), training_windows=12)


def cut(source: Path) -> Cut:
    return cut_clips(plan_clips(source, SIZE), source.parent / "out", SIZE, "of a folder")


def numbers(file: Path) -> list[int]:
    """Which frames of its clip a window has."""
    return [round(float(level) / LEVELS) for level in read_frames(file).float().mean(dim=(0, 2, 3))]


def test_no_frame_that_is_held_out_is_trained_on(tmp_path: Path) -> None:
    for number in range(6):
        write_clip(tmp_path / "in", f"c{number}", frames=40)
    found = cut(tmp_path / "in")
    assert (found.frames, len(found.groups["held_out_windows"]), len(found.groups["held_out_scenes"])) == (17, 5, 1)
    assert not found.groups["training_windows"] and not found.missing
    trained: dict[str, set[int]] = {}
    files = sorted((tmp_path / "out/train/videos").glob("*.mp4"))
    assert len(files) == found.training_windows >= 10
    for file in files:
        trained.setdefault(file.stem[:2], set()).update(numbers(file))
    for name in found.groups["held_out_windows"]:
        window = numbers(tmp_path / f"out/shown/videos/{name}.mp4")
        assert (
            window == list(range(23, 40))
            and trained[name.split("_")[1]]
            and not trained[name.split("_")[1]] & set(window)
        )
    (scene,) = found.groups["held_out_scenes"]
    assert scene.split("_")[1] not in trained
    assert "the last 17 frames of 5 clips and 1 whole clip" in " ".join(found.used)
    assert read_cut(tmp_path / "out") == found


@pytest.mark.parametrize(("clips", "frames"), [(1, 40), (4, 24)])
def test_few_clips_hold_out_their_ends_and_say_that_no_scene_is(clips: int, frames: int, tmp_path: Path) -> None:
    for number in range(clips):
        write_clip(tmp_path / "in", f"c{number}", frames=frames)
    found = cut(tmp_path / "in")
    assert len(found.groups["held_out_windows"]) == clips
    assert set(found.missing) == {"held_out_scenes"} and "takes 5 clips" in found.missing["held_out_scenes"]
    assert found.training_windows > clips


def test_too_little_to_hold_out_shows_training_windows_and_says_so(tmp_path: Path) -> None:
    for number in range(2):
        write_clip(tmp_path / "in", f"c{number}", frames=9)
    found = cut(tmp_path / "in")
    assert set(found.missing) == {"held_out_windows", "held_out_scenes"}
    assert not found.groups["held_out_windows"] and len(found.groups["training_windows"]) == 2
    assert any(line.startswith("Nothing is held out") for line in found.used)


def test_clips_too_short_for_two_windows_hold_out_a_scene(tmp_path: Path) -> None:
    for number in range(5):
        write_clip(tmp_path / "in", f"c{number}", frames=7)
    found = cut(tmp_path / "in")
    assert (
        found.frames == 5 and len(found.groups["held_out_scenes"]) == 1 and set(found.missing) == {"held_out_windows"}
    )


def test_what_is_broken_is_named_and_the_rest_is_used(tmp_path: Path) -> None:
    good = [write_clip(tmp_path / "in", f"c{number}", frames=40) for number in range(2)]
    (tmp_path / "in/videos/bad.mp4").write_bytes(b"no video")
    (tmp_path / "in/videos/empty.mp4").touch()
    (tmp_path / "in/videos/cut.mp4").write_bytes(good[0].read_bytes()[:-300])
    text = " ".join(cut(tmp_path / "in").used)
    assert "bad.mp4" in text and "empty.mp4" in text and "skipped" in text


def test_clips_shorter_than_most_are_named_and_no_window(tmp_path: Path) -> None:
    for number in range(8):
        write_clip(tmp_path / "in", f"c{number}", frames=8 if number in (4, 7) else 40)
    (tmp_path / "in/videos/frame.jpg").touch()
    found = cut(tmp_path / "in")
    text = " ".join(found.used)
    assert text.startswith("6 clips of a folder: 40 frames") and "2 videos skipped: " in text
    assert "c4.mp4 is too short: 8 frames, where most videos have windows of 17" in text
    assert "Not read, because they are no videos: 1 .jpg" in text
    assert {probe(file).frames for file in (tmp_path / "out").rglob("*.mp4")} == {17}


def test_many_skipped_videos_are_counted(tmp_path: Path) -> None:
    write_clip(tmp_path / "in", "good", frames=12)
    for number in range(9):
        (tmp_path / f"in/videos/bad{number}.mp4").touch()
    text = " ".join(cut(tmp_path / "in").used)
    assert "9 videos skipped: " in text and text.count("zero bytes") == 5 and "; and 4 more." in text


def test_names_of_any_script_and_turned_phone_clips(tmp_path: Path) -> None:
    clips = tmp_path / "clips é"
    for name in ("my clip", "日本 語", "-dash", "o'quote", "[x]", "100%#"):
        turned = write_clip(clips, name, frames=12, size=(48, 80))
    content = bytearray(turned.read_bytes())
    place = content.index(b"tkhd") + 44  # The display matrix of a track header of version 0.
    content[place : place + 36] = struct.pack(">9i", 0, 1 << 16, 0, -1 << 16, 0, 0, 0, 0, 1 << 30)
    turned.write_bytes(content)
    found = cut(clips)
    assert found.groups["held_out_windows"] and found.groups["held_out_scenes"]
    assert any(line.startswith("6 clips") for line in found.used)
    assert any(line.startswith("1 clip has another shape") for line in found.used)


def test_portrait_among_landscape_is_cut_in_the_middle_and_said(tmp_path: Path) -> None:
    for number in range(3):
        write_clip(tmp_path / "in", f"c{number}", frames=12, size=(80, 48) if number else (48, 80))
    found = cut(tmp_path / "in")
    assert found.size[0] > found.size[1]
    assert any(line.startswith("1 clip has another shape") for line in found.used)
    for file in (tmp_path / "out").rglob("*.mp4"):
        info = probe(file)
        assert [info.height, info.width] == found.size and info.frames == found.frames


def test_rates_are_said_and_written(tmp_path: Path) -> None:
    for number, fps in enumerate((30.0, 30.0, 60.0)):
        write_clip(tmp_path / "in", f"c{number}", frames=48, fps=fps)
    found = cut(tmp_path / "in")
    assert any("at 30 to 60 frames a second" in line for line in found.used)
    rates = {round(probe(file).fps, 2) for file in (tmp_path / "out").rglob("*.mp4")}
    assert rates == {15.0}


def test_clips_without_captions_are_used(tmp_path: Path) -> None:
    write_clip(tmp_path / "in", "c0", frames=12, caption=None)
    found = cut(tmp_path / "in")
    assert "1 clip without a caption: “a video” is taken." in found.used
    assert all(file.read_text(encoding="utf-8") == "a video\n" for file in (tmp_path / "out").rglob("*.txt"))


def test_pictures_are_no_videos(tmp_path: Path) -> None:
    Image.new("RGB", (64, 48)).save(tmp_path / "a.jpg")
    with pytest.raises(InputError, match=r"holds no video.*found 1 \.jpg"):
        plan_clips(tmp_path, SIZE)
