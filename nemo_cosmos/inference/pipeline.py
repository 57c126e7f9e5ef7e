"""From a prompt and, for Video2World, given frames to a video."""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from nemo_cosmos.data.sample import pad_text
from nemo_cosmos.diffusion.samplers import Progress
from nemo_cosmos.errors import InputError
from nemo_cosmos.inference.components import Component
from nemo_cosmos.inference.config import DEFAULT_FPS, GenerationConfig, WeightDefaults
from nemo_cosmos.inference.guardrail import Guardrail
from nemo_cosmos.inference.inputs import InputFrames, read_input
from nemo_cosmos.inference.prompts import PromptUpsampler
from nemo_cosmos.inference.ranks import Ranks
from nemo_cosmos.inference.requests import GenerationRequest
from nemo_cosmos.inference.sampling import SamplingInputs, sample_latent
from nemo_cosmos.models.dit.config import DiTConfig
from nemo_cosmos.models.text import TextEncoder
from nemo_cosmos.models.video_tokenizer import VideoTokenizer

if TYPE_CHECKING:
    from nemo_cosmos.models.dit.model import CosmosDiT

logger = logging.getLogger(__name__)


@dataclass
class Models:
    """The parts of a pipeline; each decides by itself when it is on the device. ``dit`` describes the network."""

    dit: DiTConfig
    network: Component[CosmosDiT]
    tokenizer: Component[VideoTokenizer]
    text_encoder: Component[TextEncoder]
    upsampler: Component[PromptUpsampler] | None = None
    guardrail: Component[Guardrail] | None = None


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


@dataclass(frozen=True)
class PreparedText:
    """Embeddings of one request, true tokens only, on the CPU.

    ``text`` is None for a prompt that the guardrail refused. ``prompt`` is the final text, upsampled where that is on.
    """

    prompt: str
    text: Tensor | None
    negative_text: Tensor


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
    if dit.plucker_channels or dit.multiview:
        kind = "camera control" if dit.plucker_channels else "multiview"
        raise InputError(f"the weights are a {kind} network, which takes more than a prompt and an input video")
    if has_input and not dit.condition_mask:
        raise InputError("the weights are a Text2World network, which takes no input image or video")
    height = config.height or defaults.size[0]
    width = config.width or defaults.size[1]
    cell = tokenizer.spatial_compression * dit.patch_size
    for name, value, limit in (("height", height, dit.max_height), ("width", width, dit.max_width)):
        if value % cell:
            below = max(value // cell * cell, cell)
            raise InputError(f"{name}={value} is not a multiple of {cell}: nearest are {below} and {below + cell}")
        if value // tokenizer.spatial_compression > limit:
            largest = limit * tokenizer.spatial_compression
            raise InputError(f"{name}={value} is beyond the network's largest, {largest} pixels")
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


class WorldPipeline:
    """Text2World and Video2World generation.

    On several ranks every rank runs the network on its part of the tokens; all else happens on the first one alone.

    Args:
        models: the parts.
        config: the user's settings.
        defaults: what the weights were trained with.
        ranks: the processes that share the work.
        upsampler_word_limit: prompts of more words are not upsampled; None upsamples all.
    """

    def __init__(
        self,
        models: Models,
        config: GenerationConfig,
        defaults: WeightDefaults,
        ranks: Ranks | None = None,
        *,
        upsampler_word_limit: int | None = None,
    ) -> None:
        self.models, self.config, self.defaults = models, config, defaults
        self.ranks = ranks or Ranks()
        self.upsampler_word_limit = upsampler_word_limit

    def prepare_texts(self, requests: list[GenerationRequest]) -> list[PreparedText]:
        """Checks, upsamples and embeds all prompts, so that text models are needed only once, before any video.

        Every rank gets the result.
        """
        return self.ranks.from_first(lambda: self._prepare_texts(requests))

    def _prepare_texts(self, requests: list[GenerationRequest]) -> list[PreparedText]:
        prompts, refused = [], set()
        for index, request in enumerate(requests):
            if not self._allows(request.prompt):
                refused.add(index)
            prompts.append(request.prompt)
        if self.models.upsampler is not None:
            for index, request in enumerate(requests):
                limit = self.upsampler_word_limit
                if index in refused or (limit is not None and len(request.prompt.split()) > limit):
                    continue
                prompts[index] = self._upsample(request)
                logger.info("%s: prompt upsampled to: %s", request.name, prompts[index])
                if not self._allows(prompts[index]):
                    refused.add(index)
        for index, (request, prompt) in enumerate(zip(requests, prompts, strict=True)):
            if not prompt and not request.has_prompt and index not in refused:
                raise InputError(f"{request.name}: no prompt; only with a prompt upsampler may it be left out")
        with self.models.text_encoder.use() as encoder:
            if encoder.width != self.models.dit.text_width:
                raise InputError(
                    f"text encoder {encoder.name} gives embeddings of width {encoder.width}, the network takes "
                    f"{self.models.dit.text_width}: name the text encoder it was trained with"
                )
            if self.defaults.text_encoder and encoder.name != self.defaults.text_encoder:
                logger.warning(
                    "text encoder %s, but the weights were trained with embeddings of %s",
                    encoder.name,
                    self.defaults.text_encoder,
                )
            negative = torch.zeros(0, encoder.width)
            for name, prompt in [*zip((r.name for r in requests), prompts, strict=True), *self._negative()]:
                if (count := encoder.token_count(prompt)) > encoder.max_length:
                    logger.warning("%s: only the first %d of %d text tokens are used", name, encoder.max_length, count)
            if self.config.negative_prompt:
                negative = encoder.encode_trimmed([self.config.negative_prompt])[0].float().cpu()
            # One prompt at a time: a batch would round differently for every set of neighbours.
            texts = [
                None if index in refused else encoder.encode_trimmed([prompt])[0].float().cpu()
                for index, prompt in enumerate(prompts)
            ]
        return [PreparedText(prompt, text, negative) for prompt, text in zip(prompts, texts, strict=True)]

    def generate(
        self, request: GenerationRequest, prepared: PreparedText, *, progress: Progress | None = None
    ) -> tuple[Tensor | None, float]:
        """One video and its frame rate.

        Returns:
            (3, T, H, W) uint8 frames on the first rank, None on the others and for a video that the guardrail refused.
        """
        assert prepared.text is not None, "a refused prompt was not taken out"
        plan, given, condition = self.ranks.from_first(partial(self._encode_input, request))
        fps = self._frame_rate(request, given)
        seed = self.config.seed if request.seed is None else request.seed
        inputs = SamplingInputs(
            shape=plan.latent_shape,
            text=pad_text(prepared.text, self.defaults.text_length, name=request.name)[None],
            negative_text=pad_text(prepared.negative_text, self.defaults.text_length, name="negative prompt")[None],
            fps=fps,
            seed=seed,
            condition=condition,
            padding_mask=None if given is None or given.padding_mask is None else given.padding_mask[None],
        )
        chunks: list[Tensor] = []
        for index in range(plan.video.num_chunks):
            latent = self._sample(
                replace(inputs, seed=(seed + index) % 2**32), _scaled(progress, index, plan.video.num_chunks)
            )
            if not bool(torch.isfinite(latent).all()):
                raise InputError(f"{request.name}: the network gave values that are not finite; try --precision fp32")
            is_last = index + 1 == plan.video.num_chunks
            tail = self.ranks.from_first(partial(self._decode, latent, plan.video, chunks, is_last))
            inputs = replace(inputs, condition=tail)
        if not self.ranks.is_first:
            return None, fps
        frames = torch.cat(chunks, dim=1)[:, : plan.video.num_frames]
        return self._filter(frames), fps

    def _frame_rate(self, request: GenerationRequest, given: InputFrames | None) -> float:
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
            DEFAULT_FPS,
        )
        return DEFAULT_FPS

    def _encode_input(self, request: GenerationRequest) -> tuple[_LatentPlan, InputFrames | None, Tensor | None]:
        dit, has_input = self.models.dit, request.given is not None
        with self.models.tokenizer.use() as tokenizer:
            expected = self.defaults.tokenizer
            if expected is not None and tokenizer.identity != expected:
                raise InputError(
                    f"tokenizer {tokenizer.identity} is not the one that made the training latents, {expected}"
                )
            video = plan_video(self.config, self.defaults, tokenizer, dit, has_input=has_input)
            plan = _LatentPlan(video, video.latent_shape(tokenizer))
            channels = plan.latent_shape[0]
            if channels != dit.in_channels:
                raise InputError(f"tokenizer {tokenizer.name} has {channels} latent channels, not {dit.in_channels}")
            if request.given is None:
                return plan, None, None
            size = (video.height, video.width)
            given = read_input(request.given, size, self.config, self.defaults, tokenizer.spatial_compression)
            return plan, given, tokenizer.encode(to_unit_range(given.frames)).cpu()

    def _sample(self, inputs: SamplingInputs, progress: Progress | None) -> Tensor:
        with self.models.network.use() as network:
            return sample_latent(
                network,
                self.models.dit,
                inputs,
                self.config,
                sigma_data=self.defaults.sigma_data,
                progress=progress,
            ).cpu()

    def _decode(self, latent: Tensor, plan: VideoPlan, chunks: list[Tensor], is_last: bool) -> Tensor | None:
        """Appends the decoded frames that are new; returns the latent of the overlap for the next chunk."""
        with self.models.tokenizer.use() as tokenizer:
            video = tokenizer.decode(latent).clamp(-1, 1).cpu()
            new = video[0, :, plan.overlap_frames :] if chunks else video[0]
            chunks.append(to_uint8(new))
            if is_last:
                return None
            return tokenizer.encode(to_unit_range(_last_frames(chunks, plan.overlap_frames))).cpu()

    def _negative(self) -> list[tuple[str, str]]:
        return [("negative prompt", self.config.negative_prompt)] if self.config.negative_prompt else []

    def _allows(self, prompt: str) -> bool:
        if self.models.guardrail is None or not prompt:
            return True
        with self.models.guardrail.use() as guardrail:
            return guardrail.allows_prompt(prompt)

    def _filter(self, frames: Tensor) -> Tensor | None:
        if self.models.guardrail is None:
            return frames
        with self.models.guardrail.use() as guardrail:
            return guardrail.filter_video(frames)

    def _upsample(self, request: GenerationRequest) -> str:
        assert self.models.upsampler is not None
        image = None
        if request.given is not None:
            size = (self.config.height or self.defaults.size[0], self.config.width or self.defaults.size[1])
            image = read_input(request.given, size, self.config, self.defaults, 1).frames[:, -1]
        with self.models.upsampler.use() as upsampler:
            return upsampler.upsample(request.prompt, image)


@dataclass(frozen=True)
class _LatentPlan:
    video: VideoPlan
    latent_shape: tuple[int, int, int, int]


def to_unit_range(frames: Tensor) -> Tensor:
    """(3, T, H, W) uint8 to (1, 3, T, H, W) float in [-1, 1]: x / 127.5 - 1, as training does."""
    return frames.float().div(127.5).sub(1)[None]


def _last_frames(chunks: list[Tensor], count: int) -> Tensor:
    """The last frames of the video so far, which may span several chunks, as a viewer sees them."""
    start, held = len(chunks), 0
    while held < count:
        start -= 1
        held += chunks[start].shape[1]
    return torch.cat(chunks[start:], dim=1)[:, -count:]


def to_uint8(video: Tensor) -> Tensor:
    """[-1, 1] float to uint8, rounded to the nearest level."""
    return ((video + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)


def _scaled(progress: Progress | None, index: int, num_chunks: int) -> Progress | None:
    """Progress of one chunk as progress of the whole video."""
    if progress is None:
        return None

    def report(done: int, total: int) -> None:
        progress(index * total + done, num_chunks * total)

    return report
