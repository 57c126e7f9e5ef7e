"""Clips of many kinds: what moves, what stands still, and captions that are true of them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from nemo_cosmos.prepare.sample_worlds import KINDS, WorldsSettings, draw_clip
from nemo_cosmos.scenes.worlds.arm import Task, caption, draw_arm_clip
from nemo_cosmos.scenes.worlds.floating import draw_thing
from nemo_cosmos.scenes.worlds.moving_photo import draw_view, seen, still_view
from nemo_cosmos.scenes.worlds.paths import minimum_jerk, progress, through
from nemo_cosmos.scenes.worlds.pictures import Library, Material, Picture, draw_look, texture, tinted
from nemo_cosmos.scenes.worlds.stage import Stage
from nemo_cosmos.scenes.worlds.table import TOOLS
from nemo_cosmos.scenes.worlds.things import put
from tests.scenes.pictures_of import make_photographs


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    site = tmp_path_factory.mktemp("site")
    photographs = make_photographs(site)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(site)
        yield Library(photographs)


def stage_of(library, seed=0, size=(48, 64), frames=9, fps=8.0):
    return Stage(np.random.default_rng(seed), library, size, frames, fps)


@pytest.mark.parametrize("size", [(48, 64), (64, 48)], ids=["landscape", "portrait"])
@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_renders_frames_that_differ_and_says_so(library, kind, size):
    settings = WorldsSettings(size=size, frames=5)
    clip, made, stage = draw_clip(settings, library, (3, 0), kind)
    assert made == kind and stage.fps in KINDS[kind].rates
    assert clip.frames.shape == (5, *size, 3) and clip.frames.dtype == np.uint8
    moved = np.abs(np.diff(clip.frames.astype(int), axis=0)).max(axis=(1, 2, 3))
    assert moved.max() > 8, "something is seen to move"
    assert clip.frames.std() > 5 and clip.caption.strip() == clip.caption and len(clip.caption) > 10
    again, _, _ = draw_clip(settings, library, (3, 0), kind)
    assert (again.frames == clip.frames).all() and again.caption == clip.caption


def test_without_photographs_no_kind_needs_one():
    library = Library(())
    settings = WorldsSettings(size=(32, 48), frames=3, without_photos=True)
    kinds = set()
    for number in range(12):
        _, kind, stage = draw_clip(settings, library, (5, number))
        kinds.add(kind)
        assert all("texture" in name for name in stage.used)
    assert len(kinds) > 2 and "moving_photo" not in kinds


@pytest.mark.parametrize("seed", range(4))
def test_all_but_arm_thing_and_shadow_stands_still(library, seed):
    stage = stage_of(library, seed, fps=3.0, frames=13)
    clip = draw_arm_clip(stage)
    still = ~clip.moved.any(0)
    assert 0.2 < still.float().mean() < 0.98
    background = clip.colours[:, :, still]
    assert (background == background[:, :1]).all()
    assert (clip.colours[:, 1:] - clip.colours[:, :1]).abs().max() > 0.1


def task(x, height):
    still = np.zeros(len(x))
    return Task(np.array(x), still, np.array(height), still, np.array(x), still, np.array(height))


@pytest.mark.parametrize(
    ("x", "height", "said"),
    [
        ((0, 0, 0), (0, 0.2, 0.4), "picks up a red cup on a table"),
        ((0, 0.3, 0.6), (0.4, 0.4, 0), "moves and puts down a red cup to the right on a table"),
        ((0.5, 0.3, 0), (0, 0, 0), "moves a red cup to the left on a table"),
        ((0, 0, 0), (0, 0, 0), "moves over a red cup on a table"),
    ],
)
def test_captions_say_the_part_of_a_task_that_is_seen(x, height, said):
    assert caption(task(x, height), "red cup", "a table") == f"a robot arm {said}"


def test_a_camera_that_pans_right_shows_what_is_to_the_right(library):
    """The picture's brightness grows to the right: so it does in a clip that pans right."""
    ramp = np.repeat(np.linspace(0, 255, 160)[None, :, None], 120, 0).repeat(3, 2).astype(np.uint8)
    material = Material(Picture(ramp, "ramp", "a ramp"), draw_look(np.random.default_rng(0), strength=0.0))
    found = set()
    for seed in range(60):
        stage = stage_of(library, seed)
        view, said = draw_view(stage, material)
        if said in ("pans left", "pans right"):
            means = seen(stage, material, view).mean(dim=(0, 2, 3))
            assert (means[-1] > means[0]) == (said == "pans right"), seed
            found.add(said)
    assert found == {"pans left", "pans right"}


def test_fine_pictures_are_looked_up_without_moire(library):
    """A chessboard of single pixels that is seen small is grey, not a pattern."""
    board = (np.indices((128, 128)).sum(0) % 2 * 255).astype(np.uint8)[..., None].repeat(3, 2)
    stage = stage_of(library, size=(24, 24), frames=1)
    look = draw_look(np.random.default_rng(0), strength=0.0)
    colours = seen(stage, Material(Picture(board, "board", "a board"), look), still_view(stage, 1.0))
    assert (colours - 0.5).abs().max() < 0.02


def test_textures_repeat_without_a_seam():
    picture = texture(np.random.default_rng(1), ("plaster",))
    side = torch.linspace(-3, 3, 301)
    points = torch.stack(torch.meshgrid(side, side, indexing="xy"), -1)[None]
    colours = picture.at(points, 3)
    steps = (colours[..., 1:] - colours[..., :-1]).abs()
    assert (colours[..., :100] - colours[..., 100:200]).abs().max() < 1e-3
    assert steps.max() < 4 * steps[..., 20:80].max()


def test_a_tint_is_the_colour_of_the_whole():
    picture = texture(np.random.default_rng(2), ("wooden",))
    colours = tinted(picture, (0.6, 0.3, 0.2))(picture.levels[-1][0])
    assert torch.allclose(colours.mean(dim=(1, 2)), torch.tensor([0.6, 0.3, 0.2]), atol=0.12)


@pytest.mark.parametrize("name", TOOLS)
def test_outlines_of_tools_lie_within_about_their_radius_and_in_one_piece(name):
    outline, _ = TOOLS[name]
    side = torch.linspace(-3, 3, 121)
    x, y = torch.meshgrid(side, side, indexing="xy")
    inside = outline(x, y) < 0
    assert inside.any() and torch.hypot(x, y)[inside].max() < 1.3
    rows, columns = inside.any(1).nonzero()[:, 0], inside.any(0).nonzero()[:, 0]
    assert len(rows) == rows[-1] - rows[0] + 1 and len(columns) == columns[-1] - columns[0] + 1


@pytest.mark.parametrize("way", ["line", "bow", "bounce", "circle", "fall"])
def test_things_cover_what_is_behind_and_move(library, way):
    for seed in range(3):
        stage = stage_of(library, seed, frames=9)
        thing, said = draw_thing(stage, way)
        behind = torch.full((3, 9, 48, 64), 0.5)
        colours, touched = put(stage, behind, thing)
        assert said.startswith(("a ", "an "))
        assert (colours.flatten(1)[:, ~touched.expand(9, 48, 64).flatten()] == 0.5).all()
        assert touched.shape == (9, 48, 64) and touched.any()
        assert not np.allclose(thing.x, thing.x[0]) or not np.allclose(thing.y, thing.y[0])


def test_ways_are_smooth(library):
    for seed in range(20):
        share = progress(stage_of(library, seed, frames=33))
        assert share.min() >= -1e-9 and share.max() <= 1 + 1e-9
        assert np.abs(np.diff(share, 2)).max() < 0.02
    times = np.linspace(-1, 4, 500)
    way = through(times, np.array([0.0, 1.0, 3.0]), np.array([2.0, 5.0, -1.0]))
    assert way[0] == 2 and way[-1] == pytest.approx(-1) and np.abs(np.diff(way, 2)).max() < 5e-3
    assert (minimum_jerk(np.array([-1.0, 0.5, 2.0])) == (0, 0.5, 1)).all()
