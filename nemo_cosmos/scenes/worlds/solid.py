"""Clips of the ray caster's streets and rooms: exact depth, occlusion and parallax."""

from __future__ import annotations

import numpy as np

from nemo_cosmos.scenes.cameras import Pinhole, looking
from nemo_cosmos.scenes.render import render_clip
from nemo_cosmos.scenes.room import draw_room
from nemo_cosmos.scenes.street import draw_street
from nemo_cosmos.scenes.trajectories import WAYS, draw_trajectory
from nemo_cosmos.scenes.worlds.stage import Clip, Stage

SAID = {"orbit": "moves around", "pan": "pans", "dolly": "moves", "crane": "moves", "truck": "moves"}
TOWARD = {"in": "forward", "out": "backward"}


def render_street(stage: Stage) -> Clip:
    """The front camera of a car."""
    street = draw_street(stage.random, stage.frames, stage.fps)
    camera = Pinhole.of_view(stage.size, stage.draw(50, 75))
    mount = looking(np.array([1.6, 0.0, stage.draw(1.4, 2.0)]), stage.draw(-0.3, 0.3), stage.draw(-0.08, 0.02))
    poses = np.stack([pose @ mount for pose in street.poses])
    frames = render_clip(street.scene, camera, poses, street.times)
    return Clip(frames, "a car drives forward on a street in a city")


def render_room(stage: Stage) -> Clip:
    """A camera's way through a room."""
    room = draw_room(stage.random)
    kind = stage.choose(tuple(WAYS))
    poses = draw_trajectory(stage.random, room, kind, stage.frames)
    camera = Pinhole.of_view(stage.size, stage.draw(55, 80))
    frames = render_clip(room.scene, camera, poses, [0.0] * stage.frames)
    return Clip(frames, f"the camera {move_words(kind)} in a room")


def move_words(kind: str) -> str:
    """``truck_right_crane_up`` -> ``moves right and moves up``."""
    words = kind.split("_")
    pairs = zip(words[::2], words[1::2], strict=False)
    said = [f"{SAID[move]} {TOWARD.get(where, where)}" for move, where in pairs]
    return " and ".join(said) or "moves forward and around"
