"""Text2World and Video2World: a video from a prompt and, where the network takes them, given frames."""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor

from nemo_cosmos.data.video import write_mp4
from nemo_cosmos.diffusion.samplers import Progress
from nemo_cosmos.errors import InputError
from nemo_cosmos.inference.config import DEFAULT_FPS, RELEASED_SIZE, GenerationConfig, WeightDefaults
from nemo_cosmos.inference.inputs import InputFrames
from nemo_cosmos.inference.pipelines.base import OF_SEVERAL_CAMERAS, Conditions, GenerationPipeline, plan_size
from nemo_cosmos.inference.requests import GenerationRequest
from nemo_cosmos.inference.sampling import SamplingInputs
from nemo_cosmos.models.dit.config import DiTConfig
from nemo_cosmos.models.video_tokenizer import VideoTokenizer
from nemo_cosmos.pixels import from_levels, to_uint8

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class VideoPlan:
    """Sizes of one generation, all checked.

    Attributes:
        height, width: pixels.
        num_frames: pixel frames of the finished video.
        chunk_frames: pixel frames of one sampler run.
        overlap_frames: pixel frames a later chunk is given.
        num_chunks: sampler runs.
        num_input_frames: pixel frames taken from the input, 0 without.
    """

    height: int
    width: int
    num_frames: int
    chunk_frames: int
    overlap_frames: int
    num_chunks: int
    num_input_frames: int

    def latent_shape(self, tokenizer: VideoTokenizer) -> tuple[int, int, int, int]:
        """(C, T, h, w) of one chunk."""
        cell = tokenizer.spatial_compression
        frames = tokenizer.latent_frames(self.chunk_frames)
        return tokenizer.latent_channels, frames, self.height // cell, self.width // cell


def plan_video(
    config: GenerationConfig,
    defaults: WeightDefaults,
    tokenizer: VideoTokenizer,
    dit: DiTConfig,
    *,
    has_input: bool,
) -> VideoPlan:
    """Settles sizes and frame counts.

    Raises:
        InputError: a size or count that tokenizer or network cannot take, naming the nearest ones they can; an input
            for a network without conditioning; or a long video from such a network.
    """
    if has_input and not dit.condition_mask:
        raise InputError("the weights are a Text2World network, which takes no input image or video")
    height, width = plan_size(config, defaults, tokenizer, dit)
    chunk = config.chunk_frames or defaults.num_frames or tokenizer.chunk_frames or config.num_frames
    if chunk is None:
        raise InputError(
            f"num_frames: neither the weights nor {tokenizer.name}, which takes any length, tell how many frames to "
            "make; give the number that the network was trained on"
        )
    frames = config.num_frames or chunk
    chunk = min(chunk, frames)
    name = "num_frames" if chunk == config.num_frames else "chunk_frames"
    latent_frames = _latent_frames(tokenizer, name, chunk)
    if latent_frames > dit.max_frames:
        raise InputError(
            f"{name}={chunk}: {chunk} frames in one go are {latent_frames} latent frames; the network takes "
            f"{dit.max_frames}"
        )
    given = config.num_input_frames if has_input else 0
    if given:
        _latent_frames(tokenizer, "num_input_frames", given)
        if given >= chunk:
            raise InputError(f"num_input_frames={given} leaves nothing to generate in {chunk} frames")
    overlap, num_chunks = 0, 1
    if frames > chunk:
        if not dit.condition_mask:
            raise InputError(
                f"num_frames={frames}: a Text2World network makes {chunk} frames in one go (--chunk-frames) "
                "and cannot continue a video"
            )
        overlap = config.overlap_frames
        _latent_frames(tokenizer, "overlap_frames", overlap)
        if overlap >= chunk:
            raise InputError(f"overlap_frames={overlap} leaves nothing to generate in chunks of {chunk} frames")
        num_chunks = 1 + math.ceil((frames - chunk) / (chunk - overlap))
    return VideoPlan(height, width, frames, chunk, overlap, num_chunks, given)


def _latent_frames(tokenizer: VideoTokenizer, name: str, frames: int) -> int:
    """Latent frames of a setting; InputError names it."""
    try:
        return tokenizer.latent_frames(frames)
    except InputError as error:
        raise InputError(f"{name}={frames}: {error}") from error


class WorldPipeline(GenerationPipeline[VideoPlan]):
    """Text2World and Video2World generation; a long video is continued chunk by chunk."""

    makes = "video"
    text_network = "Text2World"
    released_size = RELEASED_SIZE
    usual_fps: ClassVar[float] = DEFAULT_FPS
    """Frames per second where neither the user nor an input nor the training data tells."""
    without_effect: ClassVar[tuple[str, ...]] = ("image_format", "image_quality", *OF_SEVERAL_CAMERAS)

    @classmethod
    def takes(cls, dit: DiTConfig) -> bool:
        return not (dit.plucker_channels or dit.multiview or dit.makes_images)

    @classmethod
    def suffix(cls, config: GenerationConfig) -> str:
        return ".mp4"

    def plan(self, tokenizer: VideoTokenizer, *, has_input: bool) -> VideoPlan:
        return plan_video(self.config, self.defaults, tokenizer, self.models.dit, has_input=has_input)

    def render(
        self,
        request: GenerationRequest,
        conditions: Conditions[VideoPlan],
        inputs: SamplingInputs,
        progress: Progress | None,
    ) -> Tensor | None:
        chunks: list[Tensor] = []
        plan, seed = conditions.plan, inputs.seed
        for index in range(plan.num_chunks):
            chunk = replace(inputs, seed=(seed + index) % 2**32)
            latent = self.sample(request, chunk, _scaled(progress, index, plan.num_chunks))
            is_last = index + 1 == plan.num_chunks
            tail = self.ranks.from_first(partial(self._decode, latent, plan, chunks, is_last))
            inputs = replace(inputs, condition=tail)
        return torch.cat(chunks, dim=1)[:, : plan.num_frames] if self.ranks.is_first else None

    def write(self, path: Path, frames: Tensor, fps: float) -> None:
        write_mp4(path, frames, fps, self.config.crf)

    def frame_rate(self, request: GenerationRequest, given: InputFrames | None) -> float:
        """What the user says, else the input video's rate, else the one that the weights were trained at, else 24."""
        if self.config.fps:
            return self.config.fps
        if given is not None and given.fps:
            return given.fps
        what = (
            "an image or a video in memory"
            if request.frames is not None
            else "an image"
            if given is not None
            else "a text"
        )
        if self.defaults.fps:
            logger.info("%s: %g frames per second, the rate of all training samples", request.name, self.defaults.fps)
            return self.defaults.fps
        logger.warning(
            "%s: %s has no frame rate and the training data is not known to have one: %g frames per second are "
            "assumed, --fps names another rate",
            request.name,
            what,
            self.usual_fps,
        )
        return self.usual_fps

    def _decode(self, latent: Tensor, plan: VideoPlan, chunks: list[Tensor], is_last: bool) -> Tensor | None:
        """Appends the decoded frames that are new; returns the latent of the overlap for the next chunk."""
        with self.models.tokenizer.use() as tokenizer:
            video = tokenizer.decode(latent).clamp(-1, 1).cpu()
            new = video[0, :, plan.overlap_frames :] if chunks else video[0]
            chunks.append(to_uint8(new))
            if is_last:
                return None
            return tokenizer.encode(from_levels(_last_frames(chunks, plan.overlap_frames))[None]).cpu()


def _last_frames(chunks: list[Tensor], count: int) -> Tensor:
    """The last frames of the video so far, which may span several chunks, as a viewer sees them."""
    start, held = len(chunks), 0
    while held < count:
        start -= 1
        held += chunks[start].shape[1]
    return torch.cat(chunks[start:], dim=1)[:, -count:]


def _scaled(progress: Progress | None, index: int, num_chunks: int) -> Progress | None:
    """Progress of one chunk as progress of the whole video."""
    if progress is None:
        return None

    def report(done: int, total: int) -> None:
        progress(index * total + done, num_chunks * total)

    return report
