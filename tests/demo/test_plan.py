"""Rate, length and size of the demo's windows follow what the videos have."""

from __future__ import annotations

from pathlib import Path

import pytest

from nemo_cosmos.data.clips import Clip
from nemo_cosmos.data.video import VideoInfo
from nemo_cosmos.demo.plan import ClipPlan, Source, plan_clips, window_length, window_size
from nemo_cosmos.demo.sizes import SIZES
from nemo_cosmos.errors import InputError
from tests.demo.standin import write_clip

FULL = SIZES["full"]


def source(frames: int, fps: float = 8.0, size: tuple[int, int] = (480, 640)) -> Source:
    info = VideoInfo(frames, fps, *size, frames / fps, variable_rate=False)
    return Source(Clip(key="x", video=Path("x.mp4"), name="x.mp4"), info)


@pytest.mark.parametrize(
    ("clips", "expected"),
    [
        ([(40, 8.0)] * 3, (17, 8.0)),
        ([(24, 3.0), (46, 3.0), (30, 3.0), (32, 3.0), (33, 3.0), (24, 3.0), (31, 3.0), (30, 3.0), (16, 3.0),
          (25, 3.0)],
         (9, 3.0)),  # the rate stays; most have nine frames twice
        ([(60, 30.0)] * 5, (13, 16.0)),  # two seconds: a higher rate rather than a short window
        ([(60, 240.0)], (17, 240.0)),  # a quarter of a second: unthinned
        ([(7, 8.0)] * 6, (5, 8.0)),  # once, but not twice
        ([(9, 8.0)] * 2, (9, 8.0)),
    ],
)  # fmt: skip
def test_length_and_rate(clips: list[tuple[int, float]], expected: tuple[int, float]) -> None:
    assert window_length([source(*clip) for clip in clips], FULL) == expected


def test_far_rates_become_one() -> None:
    sources = [source(int(3 * fps), fps) for fps in (24.0, 25.0, 30.0, 50.0, 60.0, 120.0, 240.0)]
    frames, rate = window_length(sources, FULL)
    plan = ClipPlan(tuple(sources), (), 0, frames, rate, (96, 128))
    thinned = [one.info.fps / plan.step(one) for one in sources]
    assert max(thinned) < 1.5 * min(thinned)


def test_a_short_fast_clip_is_thinned_less_than_the_others() -> None:
    plan = ClipPlan((), (), 0, 17, 8.0, (96, 128))
    assert plan.step(source(400, 240.0)) == 23
    assert plan.step(source(20, 240.0)) == 1


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((480, 640), (96, 128)), ((640, 480), (128, 96)), ((2160, 3840), (80, 144)), ((1920, 1080), (144, 80)),
        ((64, 64), (112, 112)), ((16, 16), (112, 112)), ((32, 640), (32, 640)),
    ],
)  # fmt: skip
def test_size_has_the_shape_and_about_the_area(shape: tuple[int, int], expected: tuple[int, int]) -> None:
    assert window_size([source(40, size=shape)], FULL.area) == expected


def test_size_is_that_of_most_clips() -> None:
    shapes = [(480, 640), (1080, 608), (480, 640)]
    assert window_size([source(40, size=shape) for shape in shapes], FULL.area) == (96, 128)


def test_nothing_usable_ends_with_one_line(tmp_path: Path) -> None:
    for number in range(2):
        write_clip(tmp_path, f"c{number}", frames=3)
    (tmp_path / "videos/broken.mp4").write_bytes(b"no video")
    with pytest.raises(InputError, match=r"none of its 3 videos can be used: .*; .*") as raised:
        plan_clips(tmp_path, FULL)
    assert "\n" not in str(raised.value) and "too short: 3 frames, 5 needed" in str(raised.value)
