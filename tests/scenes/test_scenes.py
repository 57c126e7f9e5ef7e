"""Rooms, streets and ways: drawn by seed, and as their names say."""

from __future__ import annotations

import numpy as np
import pytest

from nemo_cosmos.scenes.geometry import box
from nemo_cosmos.scenes.room import draw_room
from nemo_cosmos.scenes.street import LANE, draw_street
from nemo_cosmos.scenes.trajectories import CLEARANCE, WAYS, draw_trajectory


@pytest.fixture(scope="module")
def room():
    return draw_room(np.random.default_rng(7))


def way(room, kind, seed=0, frames=17):
    return draw_trajectory(np.random.default_rng(seed), room, kind, frames)


@pytest.mark.parametrize("kind", WAYS)
def test_ways_are_smooth_and_clear_of_everything(room, kind):
    for seed in range(4):
        poses = way(room, kind, seed)
        turns, places = poses[:, :3, :3], poses[:, :3, 3]
        assert np.abs(turns @ turns.transpose(0, 2, 1) - np.eye(3)).max() < 1e-12
        assert np.abs(np.linalg.det(turns) - 1).max() < 1e-12 and (poses[:, 3] == (0, 0, 0, 1)).all()
        assert room.clearance(places) >= CLEARANCE
        assert np.linalg.norm(np.diff(places, axis=0), axis=1).max() < 0.35
        assert np.linalg.norm(np.diff(turns, axis=0), axis=(1, 2)).max() < 0.35
        assert np.linalg.norm(poses[-1] - poses[0]) > 0.15


def test_ways_go_where_their_names_say(room):
    def parts(kind):
        poses = way(room, kind, 1)
        moved = poses[0, :3, :3].T @ (poses[-1, :3, 3] - poses[0, :3, 3])  # right, down, ahead
        turned = poses[0, :3, :3].T @ poses[-1, :3, 2]  # where it looks, in the first frame's axes
        return moved, turned

    for kind, axis, sign in (("dolly_in", 2, 1), ("dolly_out", 2, -1), ("truck_left", 0, -1), ("truck_right", 0, 1)):
        moved, turned = parts(kind)
        assert sign * moved[axis] > 0.3 and np.abs(np.delete(moved, axis)).max() < 1e-9 and turned[2] > 1 - 1e-9
    for kind, sign in (("pan_left", -1), ("pan_right", 1)):
        moved, turned = parts(kind)
        assert np.abs(moved).max() < 1e-9 and sign * turned[0] > 0.2
    for kind, sign in (("crane_up", 1), ("crane_down", -1)):
        poses = way(room, kind, 1)
        assert sign * (poses[-1, 2, 3] - poses[0, 2, 3]) > 0.2 and sign * (poses[0, 2, 2] - poses[-1, 2, 2]) > 0
    for kind, sign in (("orbit_left", -1), ("orbit_right", 1)):
        moved, turned = parts(kind)
        assert sign * moved[0] > 0.3 and sign * turned[0] < -0.1  # It looks back at what it goes round.


def test_a_way_looks_the_same_at_more_frames(room):
    few, many = way(room, "spiral", 2, 9), way(room, "spiral", 2, 17)
    assert np.allclose(few, many[::2], atol=1e-12)


def test_rooms_differ_by_seed_and_captions_name_what_is_there():
    rooms = [draw_room(np.random.default_rng(seed)) for seed in (0, 1, 0)]
    assert rooms[0].caption == rooms[2].caption != rooms[1].caption
    for room in rooms:
        labels = {surface.label for surface in room.scene.surfaces} - {""}
        assert len(labels) == 5 and all(label in room.caption for label in labels)


def test_clearance_is_the_distance_to_the_nearest_thing(room):
    low, high = room.furniture[0]
    centre = (low + high) / 2
    assert room.clearance(centre[None]) < 0
    above = np.array([[centre[0], centre[1], high[2] + 0.2]])
    assert room.clearance(above) < 0.2 + 1e-9
    assert room.clearance(np.array([[room.size[0] / 2, room.size[1] / 2, room.size[2] - 0.1]])) == pytest.approx(0.1)


def test_the_car_stays_in_its_lane_and_goes_on():
    street = draw_street(np.random.default_rng(2), 29, 10)
    places = street.poses[:, :3, 3]
    assert (np.diff(places[:, 0]) > 0.1).all() and np.abs(places[:, 1] - LANE).max() < 0.6
    ahead = street.poses[:-1, :3, 0]
    steps = np.diff(places, axis=0)
    steps /= np.linalg.norm(steps, axis=1, keepdims=True)
    assert (steps * ahead).sum(1).min() > 0.995


def test_faces_of_a_box_look_outwards():
    for yaw in (0.0, 0.8):
        faces = box((1.0, 2.0), 0.5, (2.0, 1.0, 0.6), "a", "b", yaw=yaw)
        for face in faces:
            along, up = np.array(face.along), np.array(face.up)
            middle = np.array(face.corner) + along / 2 + up / 2
            assert np.cross(along, up) @ (middle - (1.0, 2.0, 0.8)) > 0 and abs(along @ up) < 1e-12
        corners = np.concatenate([[face.corner, np.add(face.corner, face.along)] for face in faces])
        assert corners[:, 2].min() == 0.5 and corners[:, 2].max() == pytest.approx(1.1)
