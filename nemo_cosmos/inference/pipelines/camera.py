"""Camera control: a video from an image or a video and a trajectory, which the rays of every frame follow."""

from __future__ import annotations

import logging
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nemo_cosmos.camera.plot import trajectory_picture
from nemo_cosmos.camera.rays import Cameras, normalise
from nemo_cosmos.camera.stored import stored_rays
from nemo_cosmos.camera.trajectories import FRAMES, read_trajectory
from nemo_cosmos.data.images import write_image
from nemo_cosmos.errors import InputError
from nemo_cosmos.inference.config import GenerationConfig, WeightDefaults, weight_defaults
from nemo_cosmos.inference.inputs import InputFrames, picture_size, read_input
from nemo_cosmos.inference.pipelines.base import OF_SEVERAL_CAMERAS, Conditions
from nemo_cosmos.inference.pipelines.world import VideoPlan, WorldPipeline
from nemo_cosmos.inference.requests import GenerationRequest
from nemo_cosmos.inference.sampling import SamplingInputs
from nemo_cosmos.models.dit.config import DiTConfig

logger = logging.getLogger(__name__)
RATE = 7.0
"""Frames per second of the videos that scenes of DL3DV are made into."""


class CameraPipeline(WorldPipeline):
    """Video2World with camera rays. The first pose belongs to the first frame, which an input gives.

    Poses are brought to the size of the video as the input is, made relative to the first of a chunk and divided by
    its largest distance, and mapped to latent frames, all as in training. Both branches of guidance get the rays.
    """

    text_network = "camera control"
    usual_fps = RATE
    own_defaults = {"input_from": "start"}
    without_effect = ("image_format", "image_quality", *OF_SEVERAL_CAMERAS)

    @classmethod
    def takes(cls, dit: DiTConfig) -> bool:
        return bool(dit.plucker_channels) and not dit.multiview

    @classmethod
    def files(cls, path: Path, config: GenerationConfig) -> list[Path]:
        return [path.with_name(f"{path.stem}_trajectory.png"), path]

    @classmethod
    def complete(
        cls, dit: DiTConfig, requests: list[GenerationRequest], config: GenerationConfig, weights: Path
    ) -> tuple[list[GenerationRequest], GenerationConfig]:
        """As in every pipeline, and each request with its trajectory, which is read once.

        Raises:
            InputError: no trajectory, one that cannot be read, or fewer poses than frames.
        """
        requests, config = super().complete(dit, requests, config, weights)
        defaults = weight_defaults(weights, config, cls.released_size, dit)
        frames = config.num_frames or defaults.num_frames or FRAMES
        chunk = config.chunk_frames or min(frames, defaults.num_frames or FRAMES)
        config = replace(config, num_frames=frames, chunk_frames=chunk)
        requests = [replace(request, trajectory=request.trajectory or config.trajectory) for request in requests]
        for request in requests:
            cameras_of(request, config, defaults)
        return requests, config

    def frame_rate(self, request: GenerationRequest, given: InputFrames | None) -> float:
        """What the user says, else that of the training data, else that of DL3DV: poses keep their time with it."""
        return rate_of(self.config, self.defaults)

    def read_given(self, request: GenerationRequest, size: tuple[int, int], cell: int) -> list[InputFrames]:
        """As scenes are prepared: bars show the picture mirrored, and a cell is padding where its first pixel is."""
        assert request.given is not None
        return [read_input(request.given, size, self.config, self.defaults, cell, mirror=True)]

    def before(self, request: GenerationRequest, path: Path) -> None:
        """Shows the trajectory, so that a wrong one is seen at once."""
        picture, *_ = self.files(path, self.config)
        write_image(picture, trajectory_picture(cameras_of(request, self.config, self.defaults)))
        logger.info("%s: the trajectory is shown in %s", request.name, picture)

    def chunk_inputs(
        self, request: GenerationRequest, conditions: Conditions[VideoPlan], inputs: SamplingInputs, index: int
    ) -> SamplingInputs:
        """With the rays of the chunk's frames."""
        rays = self.ranks.from_first(partial(self._rays, request, conditions, index))
        return replace(inputs, network=replace(inputs.network, plucker=rays[None]))

    def _rays(self, request: GenerationRequest, conditions: Conditions[VideoPlan], index: int) -> Tensor:
        """(6, T, h, w) of one chunk."""
        plan, (_, *latent_size) = conditions.plan, conditions.latent_shape
        start = index * (plan.chunk_frames - plan.overlap_frames)
        cameras = cameras_of(request, self.config, self.defaults)
        # The last chunk may be longer than what is left of the video; what it makes beyond is cut off.
        frames = torch.arange(start, start + plan.chunk_frames).clamp(max=len(cameras) - 1)
        chunk, _ = normalise(cameras[frames])
        return stored_rays(
            chunk.poses,
            chunk.intrinsics,
            chunk.size,
            (latent_size[0], latent_size[1], latent_size[2]),
            self.defaults.camera_frames,
            conditions.padding_mask,
        )


def rate_of(config: GenerationConfig, defaults: WeightDefaults) -> float:
    """Frames per second of a video along a trajectory."""
    return config.fps or defaults.fps or RATE


def cameras_of(request: GenerationRequest, config: GenerationConfig, defaults: WeightDefaults) -> Cameras:
    """The camera of every frame of a video, in pixels of it.

    A trajectory by name is one of a camera that takes the input's whole picture.

    Raises:
        InputError: there is no trajectory, it cannot be read, or it has fewer poses than the video has frames.
    """
    if request.trajectory is None:
        raise InputError(
            f"{request.name}: no trajectory, which the network needs: name a transforms.json, a CSV file, a folder of "
            "COLMAP or a move such as orbit_left:0.3"
        )
    assert config.num_frames is not None, "settled before"
    size = (config.height or defaults.size[0], config.width or defaults.size[1])
    fit = config.fit or defaults.fit
    options: dict[str, Any] = {
        "fps": rate_of(config, defaults),
        "fov": config.fov,
        "resample": config.resample_trajectory,
    }
    picture = size if request.given is None else picture_size(request.given)
    try:
        return read_trajectory(request.trajectory, config.num_frames, size, fit=fit, picture=picture, **options)
    except InputError as error:
        raise InputError(f"{request.name}: {error}") from error
