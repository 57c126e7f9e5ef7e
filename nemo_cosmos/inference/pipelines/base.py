"""What every pipeline has: plan, encode conditions, sample, decode, write."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Generic, Protocol, TypeVar

import torch
from torch import Tensor

from nemo_cosmos.data.network_inputs import NetworkInputs
from nemo_cosmos.data.sample import pad_text
from nemo_cosmos.diffusion.samplers import Progress
from nemo_cosmos.errors import InputError, require_file
from nemo_cosmos.inference.config import TINY_GUIDANCE, GenerationConfig, WeightDefaults, is_tiny
from nemo_cosmos.inference.inputs import InputFrames, read_input
from nemo_cosmos.inference.models import Models
from nemo_cosmos.inference.pipelines.texts import PreparedText, TextPreparation
from nemo_cosmos.inference.ranks import Ranks
from nemo_cosmos.inference.requests import GenerationRequest
from nemo_cosmos.inference.sampling import SamplingInputs, sample_latent
from nemo_cosmos.models.dit.config import DiTConfig
from nemo_cosmos.models.video_tokenizer import VideoTokenizer
from nemo_cosmos.pixels import from_levels


class Plan(Protocol):
    """Sizes of one generation, all checked."""

    def latent_shape(self, tokenizer: VideoTokenizer) -> tuple[int, int, int, int]:
        """(C, T, h, w) of one sampler run."""
        ...


PlanT = TypeVar("PlanT", bound=Plan)
OF_SEVERAL_CAMERAS = ("rig", "num_views", "rope_fps", "input_stacking", "output_stacking")
"""Settings that pipelines of one camera do not read."""
OF_A_TRAJECTORY = ("trajectory", "fov", "resample_trajectory")
"""Settings that networks without camera rays do not read."""


@dataclass(frozen=True)
class Conditions(Generic[PlanT]):
    """What a request is sampled from besides its text; tensors on the CPU.

    Attributes:
        plan: sizes.
        latent_shape: (C, T, h, w) of one sampler run.
        given: the frames to start from, None without; of several views, those of the first.
        padding_mask: (1, h, w) of these, or (V, h, w) of several views; None when nothing is padded.
        latent: (1, C, n, h, w) normalised latent of these frames; of several views, of one after another.
    """

    plan: PlanT
    latent_shape: tuple[int, int, int, int]
    given: InputFrames | None = None
    padding_mask: Tensor | None = None
    latent: Tensor | None = None


class GenerationPipeline(ABC, Generic[PlanT]):
    """From a prompt, and what else the network takes, to frames.

    On several ranks every rank runs the network on its part of the tokens; all else happens on the first one alone.

    Args:
        models: the parts.
        config: the user's settings.
        defaults: what the weights were trained with.
        ranks: the processes that share the work.
        upsampler_word_limit: prompts of more words are not upsampled; None upsamples all.

    Raises:
        InputError: a setting that has no effect on what this pipeline makes.
    """

    makes: ClassVar[str]
    """One of what it makes, in messages."""
    text_network: ClassVar[str]
    """What its networks are called that take text alone."""
    released_size: ClassVar[tuple[int, int]]
    """(height, width) of weights that say none."""
    aspect_ratios: ClassVar[Mapping[str, tuple[int, int]]] = {}
    """(height, width) by width:height, for pipelines whose size may be named so."""
    own_defaults: ClassVar[Mapping[str, Any]] = {}
    """Settings with another default than :class:`GenerationConfig` has."""
    without_effect: ClassVar[tuple[str, ...]] = ()
    """Settings that this pipeline does not read."""
    upsamples: ClassVar[bool] = True
    """Whether a prompt upsampler, which is told to describe a video, may write its prompts."""

    def __init__(
        self,
        models: Models,
        config: GenerationConfig,
        defaults: WeightDefaults,
        ranks: Ranks | None = None,
        *,
        upsampler_word_limit: int | None = None,
    ) -> None:
        self.check_settings(config)
        if models.upsampler is not None and not self.upsamples:
            raise InputError(
                f"a prompt upsampler describes videos of one camera, and the weights make {self.makes}s: leave it out"
            )
        self.models, self.config, self.defaults = models, config, defaults
        self.ranks = ranks or Ranks()
        self.upsampler_word_limit = upsampler_word_limit

    @classmethod
    @abstractmethod
    def takes(cls, dit: DiTConfig) -> bool:
        """Whether it can run this network."""

    @classmethod
    @abstractmethod
    def suffix(cls, config: GenerationConfig) -> str:
        """Suffix of the file that :meth:`write` makes, with its dot."""

    @classmethod
    def place(cls, output: Path) -> tuple[Path, dict[str, Any]]:
        """Folder of the results, and ``name`` and settings that follow where ``output`` names a file."""
        return output, {}

    @classmethod
    def configure(
        cls, values: Mapping[str, Any], aspect_ratio: str | None = None, *, dit: DiTConfig | None = None
    ) -> GenerationConfig:
        """Settings by name, None for a default, with this pipeline's defaults and those of the network.

        Raises:
            InputError: a value out of range, one that has no effect, or an unknown aspect ratio.
        """
        given = {name: value for name, value in values.items() if value is not None}
        if aspect_ratio is not None:
            given |= cls._size_of(aspect_ratio, given)
        of_network = {"guidance": TINY_GUIDANCE} if dit is not None and is_tiny(dit) else {}
        config = GenerationConfig(**{**cls.own_defaults, **of_network, **given})
        cls.check_settings(config)
        return config

    @classmethod
    def _size_of(cls, aspect_ratio: str, given: Mapping[str, Any]) -> dict[str, int]:
        if not cls.aspect_ratios:
            raise InputError(f"aspect_ratio={aspect_ratio} has no effect on a {cls.makes}: give height and width")
        if not isinstance(aspect_ratio, str) or aspect_ratio not in cls.aspect_ratios:
            raise InputError(f"aspect_ratio={aspect_ratio!r}: expected {' or '.join(cls.aspect_ratios)}")
        if "height" in given or "width" in given:
            raise InputError(f"aspect_ratio={aspect_ratio}: leave it out, or height and width")
        height, width = cls.aspect_ratios[aspect_ratio]
        return {"height": height, "width": width}

    @classmethod
    def check_settings(cls, config: GenerationConfig) -> None:
        """InputError for a setting that has no effect on what this pipeline makes."""
        for field in fields(config):
            value = getattr(config, field.name)
            if field.name in cls.without_effect and value not in (field.default, cls.own_defaults.get(field.name)):
                raise InputError(f"{field.name}={value}: has no effect, the weights make {cls.makes}s: leave it out")

    @classmethod
    def complete(
        cls, dit: DiTConfig, requests: list[GenerationRequest], config: GenerationConfig, weights: Path
    ) -> tuple[list[GenerationRequest], GenerationConfig]:
        """Requests and settings with what the network and its weights add to them; before any model is loaded.

        Raises:
            InputError: an input that is not there, or that a network of one camera does not take.
        """
        for request in requests:
            if request.prompts is not None or request.visual_inputs is not None:
                raise InputError(
                    f"{request.name}: texts or inputs for several cameras, but the weights make {cls.makes}s of one"
                )
            if request.trajectory is not None and not dit.plucker_channels:
                raise InputError(f"{request.name}: a trajectory, but the weights are a network without camera rays")
            if request.visual_input is not None:
                require_file(request.visual_input, f"{request.name}: input ")
        return requests, config

    @classmethod
    def check_inputs(cls, dit: DiTConfig, requests: Iterable[GenerationRequest]) -> None:
        """InputError for a request with an input that the network does not take; before any model is loaded."""
        for request in requests:
            if request.given is not None and not dit.condition_mask:
                network = f"a {cls.text_network} network"
                raise InputError(f"{request.name}: the weights are {network}, which takes no input image or video")

    @classmethod
    def settings_record(cls, config: GenerationConfig) -> dict[str, Any]:
        """The settings that have an effect as plain values, for the record beside a result."""
        return {f.name: getattr(config, f.name) for f in fields(config) if f.name not in cls.without_effect}

    @abstractmethod
    def plan(self, tokenizer: VideoTokenizer, *, has_input: bool) -> PlanT:
        """Settles sizes; InputError for those that tokenizer or network cannot take."""

    @abstractmethod
    def render(
        self,
        request: GenerationRequest,
        conditions: Conditions[PlanT],
        inputs: SamplingInputs,
        progress: Progress | None,
    ) -> Tensor | None:
        """Samples and decodes: (3, T, H, W) uint8 frames on the first rank, None on the others.

        Of V views (V, 3, T, H, W), in the order of the rig.
        """

    @abstractmethod
    def write(self, path: Path, frames: Tensor, fps: float) -> None:
        """Writes what :meth:`render` gives to the files of :meth:`files`; each appears when it is complete."""

    def before(self, request: GenerationRequest, path: Path) -> None:
        """What is written beside the result at ``path`` before the work on it begins; on the first rank."""
        return None

    @classmethod
    def files(cls, path: Path, config: GenerationConfig) -> list[Path]:
        """Every file that is a part of the result at ``path``, a name with :meth:`suffix`; it is the last."""
        return [path]

    def frame_rate(self, request: GenerationRequest, given: InputFrames | None) -> float:
        """Frames per second that the network is told, and the file gets; 0 for what has no rate."""
        return 0.0

    def generate(
        self, request: GenerationRequest, prepared: PreparedText, *, progress: Progress | None = None
    ) -> tuple[Tensor | None, float]:
        """The frames of one request and their rate.

        Returns:
            What :meth:`render` gives on the first rank, None on the others and for what the guardrail refused.
        """
        assert prepared.text is not None, "a refused prompt was not taken out"
        conditions = self.ranks.from_first(partial(self.encode_conditions, request))
        fps, mask = self.frame_rate(request, conditions.given), conditions.padding_mask
        told = NetworkInputs(
            text=pad_text(prepared.text, self.defaults.text_length, name=request.name)[None],
            fps=torch.tensor([fps], dtype=torch.float32),
            padding_mask=None if mask is None else mask[None].float(),
        )
        inputs = SamplingInputs(
            shape=conditions.latent_shape,
            network=replace(told, **self.told(request)),
            negative_text=pad_text(prepared.negative_text, self.defaults.text_length, name="negative prompt")[None],
            seed=self.config.seed if request.seed is None else request.seed,
            condition=conditions.latent,
            num_views=max(len(request.views), 1),
        )
        frames = self.render(request, conditions, inputs, progress)
        return None if frames is None else self._filter(frames), fps

    def told(self, request: GenerationRequest) -> dict[str, Tensor]:
        """Inputs of the network, in a batch of one, beside or instead of text, frame rate and padding."""
        return {}

    def read_given(self, request: GenerationRequest, size: tuple[int, int], cell: int) -> list[InputFrames]:
        """The frames that each view of a request starts from.

        Args:
            request: one that has an input.
            size: (height, width) in pixels.
            cell: pixels per latent cell.
        """
        assert request.given is not None
        return [read_input(request.given, size, self.config, self.defaults, cell)]

    def encode_conditions(self, request: GenerationRequest) -> Conditions[PlanT]:
        """Plans, reads the input and encodes it; on the first rank.

        Raises:
            InputError: the tokenizer is not that of the training latents, or what :meth:`plan` or reading refuses.
        """
        with self.tokenizer() as tokenizer:
            plan = self.plan(tokenizer, has_input=request.given is not None)
            shape = plan.latent_shape(tokenizer)
            if shape[0] != self.models.dit.in_channels:
                raise InputError(
                    f"tokenizer {tokenizer.name} has {shape[0]} latent channels, not {self.models.dit.in_channels}"
                )
            if request.given is None:
                return Conditions(plan, shape)
            cell = tokenizer.spatial_compression
            size = (shape[2] * cell, shape[3] * cell)
            given = self.read_given(request, size, cell)
            latents = [tokenizer.encode(from_levels(view.frames)[None]).cpu() for view in given]
            return Conditions(plan, shape, given[0], _joined_masks(given), torch.cat(latents, dim=2))

    @contextmanager
    def tokenizer(self) -> Iterator[VideoTokenizer]:
        """The tokenizer in use; InputError when it is not the one of the training latents."""
        with self.models.tokenizer.use() as tokenizer:
            expected = self.defaults.tokenizer
            if expected is not None and tokenizer.identity != expected:
                raise InputError(
                    f"tokenizer {tokenizer.identity} is not the one that made the training latents, {expected}"
                )
            yield tokenizer

    def sample(self, request: GenerationRequest, inputs: SamplingInputs, progress: Progress | None) -> Tensor:
        """(1, C, T, h, w) latent on the CPU, on every rank; InputError when it is not finite."""
        with self.models.network.use() as network:
            latent = sample_latent(
                network,
                self.models.dit,
                inputs,
                self.config,
                sigma_data=self.defaults.sigma_data,
                progress=progress,
            ).cpu()
        if not bool(torch.isfinite(latent).all()):
            raise InputError(f"{request.name}: the network gave values that are not finite; try --precision fp32")
        return latent

    def prepare_texts(self, requests: list[GenerationRequest]) -> list[PreparedText]:
        """Checks, upsamples and embeds all prompts, so that text models are needed only once, before any video.

        Every rank gets the result.
        """
        texts = TextPreparation(self.models, self.config, self.defaults, self.upsampler_word_limit)
        return self.ranks.from_first(lambda: texts.prepare(requests))

    def _filter(self, frames: Tensor) -> Tensor | None:
        if self.models.guardrail is None:
            return frames
        with self.models.guardrail.use() as guardrail:
            return guardrail.filter_video(frames)


def _joined_masks(given: list[InputFrames]) -> Tensor | None:
    masks = [view.padding_mask for view in given]
    some = next((mask for mask in masks if mask is not None), None)
    return None if some is None else torch.cat([torch.zeros_like(some) if mask is None else mask for mask in masks])


def plan_size(
    config: GenerationConfig, defaults: WeightDefaults, tokenizer: VideoTokenizer, dit: DiTConfig
) -> tuple[int, int]:
    """(height, width) in pixels; InputError for what does not divide into patches or is beyond the network's table."""
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
    return height, width
