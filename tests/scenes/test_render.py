"""The ray caster: depths as by the equations of the planes, the same points and colours from everywhere."""

from __future__ import annotations

import numpy as np
import pytest

from nemo_cosmos.scenes import render as renderer
from nemo_cosmos.scenes.cameras import Pinhole, looking
from nemo_cosmos.scenes.render import render, render_clip, trace
from nemo_cosmos.scenes.room import draw_room
from nemo_cosmos.scenes.street import draw_street
from nemo_cosmos.scenes.trajectories import draw_trajectory
from tests.scenes.rays import bilinear, cast, ray, shared_points

CAMERA = Pinhole(48, 64, 47.0, 44.0, 30.5, 25.0)


@pytest.fixture(scope="module")
def room():
    return draw_room(np.random.default_rng(3))


@pytest.fixture(scope="module")
def street():
    return draw_street(np.random.default_rng(4), 9, 10)


def poses(room, kind, frames=9):
    return draw_trajectory(np.random.default_rng(5), room, kind, frames)


def test_depths_and_surfaces_are_those_of_single_rays(room, street):
    drive = street.poses[4] @ looking(np.array([1.5, 0.2, 1.9]), 0.7, -0.1)
    for scene, pose, time in ((room.scene, poses(room, "spiral")[5], 0.0), (street.scene, drive, street.times[4])):
        hits = trace(scene, CAMERA, pose, time)
        points = CAMERA.points(hits.depth, pose)
        for row, column in np.random.default_rng(0).integers(0, (48, 64), (60, 2)):
            number, point = cast(scene, pose[:3, 3], ray(CAMERA, pose, column + 0.5, row + 0.5), time)
            assert number == hits.surface[row, column]
            if number >= 0:
                surface = scene.surfaces[number]
                place = hits.coordinates[row, column]
                corner = np.array(surface.corner) + np.array(surface.velocity) * time
                placed = corner + place[0] * np.array(surface.along) + place[1] * np.array(surface.up)
                assert np.allclose(points[row, column], point, rtol=1e-9, atol=1e-9)
                assert np.allclose(placed, point, rtol=1e-9, atol=1e-9)


def test_a_room_is_closed(room):
    for kind in ("orbit_left", "dolly_out"):
        hits = trace(room.scene, CAMERA, poses(room, kind)[-1])
        assert (hits.surface >= 0).all() and np.isfinite(hits.depth).all() and hits.depth.min() > 0.02


@pytest.mark.parametrize("kind", ["orbit_right", "truck_left", "spiral"])
def test_a_point_lies_on_the_rays_of_both_frames_and_has_one_colour(room, kind):
    way = poses(room, kind)
    first, second = (CAMERA, way[0]), (CAMERA, way[6])
    here, there, points, surfaces = shared_points(room.scene, first, second)
    assert len(points) > 500
    for k in range(0, len(points), len(points) // 40):
        for (camera, pose), pixel in ((first, here[k]), (second, there[k])):
            away = points[k] - pose[:3, 3]
            along = ray(camera, pose, *pixel)
            assert np.linalg.norm(np.cross(away, along)) < 1e-4 * np.linalg.norm(away)
        number, point = cast(room.scene, way[6][:3, 3], ray(CAMERA, way[6], *there[k]))
        if number == surfaces[k]:  # Otherwise an edge passes through the pixel.
            assert np.linalg.norm(point - points[k]) < 1e-4 * np.linalg.norm(points[k] - way[6][:3, 3])
    pictures = [render(room.scene, CAMERA, pose, supersample=3) for pose in (way[0], way[6])]
    difference = np.abs(bilinear(pictures[0], *here.T) - bilinear(pictures[1], *there.T)).mean(1)
    shuffled = np.random.default_rng(0).permutation(len(there))
    by_chance = np.abs(bilinear(pictures[0], *here.T) - bilinear(pictures[1], *there[shuffled].T)).mean(1)
    assert np.median(difference) < 4 and difference.mean() < 0.25 * by_chance.mean()


def test_the_background_is_where_nothing_is(street):
    up = street.poses[0] @ looking(np.array([0.0, 0.0, 300.0]), 0.0, 0.3)
    assert (trace(street.scene, CAMERA, up).surface == -1).all()
    assert np.ptp(render(street.scene, CAMERA, up).reshape(-1, 3), 0).max() == 0


def test_a_picture_does_not_depend_on_how_many_rows_are_cast_at_once(room, monkeypatch):
    pose = poses(room, "pan_left")[3]
    whole = render(room.scene, CAMERA, pose, supersample=2)
    monkeypatch.setattr(renderer, "BAND", 300)
    assert np.array_equal(render(room.scene, CAMERA, pose, supersample=2), whole)
    assert trace(room.scene, CAMERA, pose).depth.shape == (48, 64)


def test_more_rays_bring_a_picture_nearer_to_the_truth(room):
    pose = poses(room, "crane_up")[2]
    truth = render(room.scene, CAMERA, pose, supersample=8).astype(float)
    one, two, four = (np.abs(render(room.scene, CAMERA, pose, supersample=n) - truth).mean() for n in (1, 2, 4))
    assert one > 1.3 * two > 1.3 * four


def test_moving_cars_move_and_houses_stay(street):
    moving = [surface for surface in street.scene.surfaces if surface.velocity != (0.0, 0.0, 0.0)]
    assert {surface.label.split()[0] for surface in moving if surface.label} == {"moving", "oncoming"}
    still = street.poses[0] @ looking(np.array([1.5, 0.0, 1.9]), 0.0)
    clip = render_clip(street.scene, CAMERA, np.stack([still] * 2), (0.0, 0.8))
    changed = (clip[0] != clip[1]).any(-1)
    hits = [trace(street.scene, CAMERA, still, time) for time in (0.0, 0.8)]
    moved = np.zeros(changed.shape, bool)
    for hit in hits:
        moved |= np.isin(hit.surface, [street.scene.surfaces.index(surface) for surface in moving])
    beside = moved | np.roll(moved, 1, 0) | np.roll(moved, -1, 0) | np.roll(moved, 1, 1) | np.roll(moved, -1, 1)
    assert changed.any() and not (changed & ~beside).any()


def test_pictures_have_structure_at_all_scales(room, street):
    drive = street.poses[0] @ looking(np.array([1.5, 0.0, 1.9]), 0.0)
    camera = Pinhole.of_view((128, 128), 60)
    for scene, pose in ((room.scene, poses(room, "orbit_left")[0]), (street.scene, drive)):
        picture = render(scene, camera, pose).astype(float).mean(-1)
        assert picture.std() > 20
        for side in (1, 2, 4, 8, 16):
            blocks = picture.reshape(128 // side, side, 128 // side, side).mean((1, 3))
            assert np.abs(np.diff(blocks, axis=1)).mean() > 1.5


def test_points_and_pixels_are_inverse():
    pose = looking(np.array([1.0, 2.0, 3.0]), 2.1, -0.4)
    depth = np.random.default_rng(0).uniform(1, 5, (48, 64))
    pixels, found = CAMERA.project(CAMERA.points(depth, pose), pose)
    columns, rows = np.meshgrid(np.arange(64) + 0.5, np.arange(48) + 0.5)
    assert np.allclose(found, depth) and np.allclose(pixels, np.stack([columns, rows], -1))


def test_fine_cameras_see_the_same():
    fine = CAMERA.scaled(4)
    pose = looking(np.zeros(3), 0.3)
    point = np.array([[2.0, 0.5, 0.4]])
    assert np.allclose(fine.project(point, pose)[0], 4 * CAMERA.project(point, pose)[0])
