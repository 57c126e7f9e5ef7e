"""Rendered clips: layout, determinism, true captions, motion that a model can learn."""

import numpy as np
import pytest
import torch

from nemo_cosmos.data.video import probe, read_frames
from nemo_cosmos.errors import InputError
from nemo_cosmos.prepare.sample_data import (
    DIRECTIONS,
    PAN,
    PATTERNS,
    SampleDataSettings,
    draw_scene,
    render_sample_data,
    render_scene,
)

SMALL = SampleDataSettings(clips=5, held_out=2, size=(64, 64), frames=9, fps=8, seed=1)


def render(path, settings=SMALL):
    return [p.relative_to(path).as_posix() for p in render_sample_data(path, settings)]


def test_layout_is_the_one_that_prepare_reads(tmp_path):
    render(tmp_path)
    videos = sorted(p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*.mp4"))
    assert videos[0] == "held_out/videos/held_out_00000.mp4" and len(videos) == 7
    for video in videos:
        info = probe(tmp_path / video)
        assert (info.frames, info.height, info.width) == (9, 64, 64) and info.fps == pytest.approx(8)
        caption = (tmp_path / video.replace("videos", "metas")).with_suffix(".txt").read_text().strip()
        assert " moves " in caption and caption.endswith(" floor")


def test_same_seed_same_bytes_other_seed_other_clips(tmp_path):
    other = SampleDataSettings(clips=5, held_out=2, size=(64, 64), frames=9, fps=8, seed=2)
    for name, settings in (("a", SMALL), ("b", SMALL), ("c", other)):
        render(tmp_path / name, settings)
    clips = [p.relative_to(tmp_path / "a") for p in (tmp_path / "a").rglob("*.mp4")]
    assert all((tmp_path / "a" / p).read_bytes() == (tmp_path / "b" / p).read_bytes() for p in clips)
    assert not any((tmp_path / "a" / p).read_bytes() == (tmp_path / "c" / p).read_bytes() for p in clips)


def test_second_call_keeps_clips_and_fills_gaps(tmp_path):
    paths = render(tmp_path)
    before = {p: (tmp_path / p).stat().st_mtime_ns for p in paths}
    content = (tmp_path / paths[2]).read_bytes()
    (tmp_path / paths[2]).unlink()
    assert render(tmp_path) == paths
    assert (tmp_path / paths[2]).read_bytes() == content
    assert all((tmp_path / p).stat().st_mtime_ns == before[p] for p in paths if p != paths[2])


def test_other_settings_or_files_are_refused(tmp_path):
    render(tmp_path / "a")
    with pytest.raises(InputError, match="frames=9, not 17"):
        render(tmp_path / "a", SampleDataSettings(clips=5, held_out=2, size=(64, 64), frames=17, fps=8, seed=1))
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "thesis.txt").write_text("x")
    with pytest.raises(InputError, match="no rendered clips"):
        render(tmp_path / "b")


@pytest.mark.parametrize("number", range(8))
def test_picture_moves_as_the_caption_says(number):
    scene = draw_scene(np.random.default_rng(number), number)
    assert f" moves {scene.direction} over a {scene.pattern} floor" in scene.caption
    video = render_scene(scene, 17, (64, 64)).astype(np.float32)
    step = np.array(DIRECTIONS[scene.direction]) * 64 * PAN / 16
    shift = np.rint(step * 5).astype(int)  # five frames: 8 pixels
    along, against = (
        np.abs(np.roll(video[0], tuple(sign * shift), (0, 1)) - video[5])[12:52, 12:52].mean() for sign in (1, -1)
    )
    assert along < 0.7 * against


def test_frozen_first_frame_is_far_off():
    values = []
    for number in range(16):
        video = render_scene(draw_scene(np.random.default_rng((0, number)), number), 17, (64, 64)) / 255.0
        values.append(-10 * np.log10(((video[1:] - video[:1]) ** 2).mean()))
    assert 11.5 < np.mean(values) < 14


def test_directions_and_patterns_take_turns():
    scenes = [draw_scene(np.random.default_rng(n), n) for n in range(16)]
    assert {(s.direction, s.pattern) for s in scenes} == {(d, p) for d in DIRECTIONS for p in PATTERNS}


def test_not_square(tmp_path):
    list(render_sample_data(tmp_path, SampleDataSettings(clips=1, held_out=0, size=(48, 80), frames=3)))
    assert read_frames(tmp_path / "train/videos/train_00000.mp4").shape == torch.Size([3, 3, 48, 80])


@pytest.mark.parametrize("wrong", [{"clips": 0}, {"size": (63, 64)}, {"frames": 1}, {"fps": 0}, {"seed": -1}])
def test_wrong_settings_are_named(wrong):
    with pytest.raises(InputError, match=next(iter(wrong))):
        SampleDataSettings(**wrong)
