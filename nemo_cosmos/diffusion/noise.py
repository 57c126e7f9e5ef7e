"""Random draws of training and sampling, keyed so that they never depend on the parallel layout.

Every sample of a run has a global position (its index in the whole sequence of samples the run consumes). Each kind of
draw for a sample comes from its own ``torch.Generator``, seeded with a hash of (seed, position, name of the stream).
Batch grouping, number of ranks, resuming and options that add or remove other draws therefore leave it unchanged.
"""

import hashlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Literal

import numpy
import torch
from torch import Tensor

from nemo_cosmos.diffusion.conditioning import frame_indicator


@dataclass(frozen=True)
class SigmaDistribution:
    """Log-normal noise levels: sigma = multiplier * exp(N(p_mean, p_std)), with an optional share of very high levels.

    Attributes:
        p_mean, p_std: mean and standard deviation of ln sigma before the multiplier.
        multiplier: sqrt(latent frames) for video in most Cosmos recipes (4 for 16 frames), 1 for images.
        high_sigma_probability: share of samples whose sigma is drawn log-uniformly from ``high_sigma_range`` instead
            (0.05 for Predict2 video).
        high_sigma_range: lowest and highest sigma of that share.
    """

    p_mean: float = 0.0
    p_std: float = 1.0
    multiplier: float = 1.0
    high_sigma_probability: float = 0.0
    high_sigma_range: tuple[float, float] = (200.0, 100_000.0)

    def __post_init__(self) -> None:
        low, high = self.high_sigma_range
        if self.p_std <= 0 or self.multiplier <= 0 or not 0 < low <= high or not 0 <= self.high_sigma_probability <= 1:
            raise ValueError(f"not a distribution of positive noise levels: {self}")

    def quantile(self, uniform: float) -> float:
        """sigma at a probability in (0, 1), without the high-sigma share."""
        return self.multiplier * math.exp(NormalDist(self.p_mean, self.p_std).inv_cdf(uniform))

    def draw(self, generator: torch.Generator) -> float:
        """One sigma. Always consumes three uniforms, so that the share of high levels does not shift later draws."""
        base, choice, high = (_open_uniform(generator) for _ in range(3))
        if choice < self.high_sigma_probability:
            low_log, high_log = (math.log(bound) for bound in self.high_sigma_range)
            return math.exp(low_log + (high_log - low_log) * high)
        return self.quantile(base)


@dataclass(frozen=True)
class ConditionFrames:
    """How many latent frames of a training sample are given to the network as conditioning.

    Attributes:
        location: "first_random_n" (n uniform in [minimum, maximum], drawn for every sample), "random" (each latent
            frame on its own with probability ``rate``), or "none" (Text2World, Text2Image).
        minimum, maximum: bounds of n, both included. Predict1 Video2World 0..2, Predict2 Video2World 1..2.
        rate: probability of a frame under "random".
        drop_rate: probability that a sample's conditioning is dropped (the mask channel and the frames are blanked).
        num_views: for multiview, the first n frames of every view are given; T must be a multiple of it.
    """

    location: Literal["first_random_n", "random", "none"] = "first_random_n"
    minimum: int = 0
    maximum: int = 2
    rate: float = 0.5
    drop_rate: float = 0.0
    num_views: int = 1

    def __post_init__(self) -> None:
        if self.location not in ("first_random_n", "random", "none"):
            raise ValueError(f"condition location {self.location!r} is none of first_random_n, random, none")
        if not 0 <= self.minimum <= self.maximum or not 0 <= self.rate <= 1 or not 0 <= self.drop_rate <= 1:
            raise ValueError(f"condition frames need 0 <= minimum <= maximum and rates in [0, 1]: {self}")


@dataclass
class TrainingDraw:
    """Everything random about one training batch; fp32 unless said otherwise.

    Attributes:
        sigma: (B,) noise level.
        epsilon: (B, C, T, H, W) standard normal noise.
        augment_sigma: (B,) noise level of the conditioning frames, None if they are not augmented.
        augment_noise: (B, C, T, H, W) standard normal noise of the conditioning frames, None likewise.
        num_condition_frames: (B,) int64, latent frames given as conditioning, per view.
        indicator: (B, T) float, 1 on those frames; None without conditioning.
        drop_condition: (B,) bool, samples whose conditioning is dropped.
        drop_text: (B,) bool, samples whose text embedding is replaced with zeros.
    """

    sigma: Tensor
    epsilon: Tensor
    augment_sigma: Tensor | None
    augment_noise: Tensor | None
    num_condition_frames: Tensor
    indicator: Tensor | None
    drop_condition: Tensor
    drop_text: Tensor


def sample_generator(
    seed: int, position: int, device: torch.device | str = "cpu", stream: str = "default"
) -> torch.Generator:
    """A generator for one stream of one sample, the same for every batch grouping, rank and layout.

    The seed is 64 bits of BLAKE2b over (seed, position, stream). PyTorch's CPU generator uses the low 32 of them, its
    CUDA generator all; the numbers drawn differ between the two kinds of device.
    """
    return torch.Generator(device=device).manual_seed(_stream_seed(seed, position, stream))


def _stream_seed(seed: int, position: int, stream: str) -> int:
    digest = hashlib.blake2b(f"{int(seed)}/{int(position)}/{stream}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def _one_after_another(
    seed: int, positions: Sequence[int], stream: str, device: torch.device | str = "cpu"
) -> Iterator[torch.Generator]:
    """:func:`sample_generator` of each position; valid until the next is asked for, because making one takes long."""
    generator = torch.Generator(device=device)
    for position in positions:
        yield generator.manual_seed(_stream_seed(seed, position, stream))


def draw_training_noise(
    position: Tensor | Sequence[int],
    shape: Sequence[int],
    *,
    seed: int,
    sigma: SigmaDistribution,
    condition_frames: ConditionFrames | None = None,
    augment_sigma: SigmaDistribution | None = None,
    text_drop_rate: float = 0.2,
    device: torch.device | str = "cpu",
    generator_device: torch.device | str = "cpu",
) -> TrainingDraw:
    """Draws noise levels, noise and conditioning choices for a batch, each sample from its own generators.

    Args:
        position: (B,) global sample positions.
        shape: (C, T, H, W) of one sample's full latent. Under context parallelism pass the full shape on every rank
            and slice afterwards, so that the split does not change the noise.
        seed: seed of the run.
        sigma: distribution of noise levels.
        condition_frames: conditioning choices; None means no conditioning.
        augment_sigma: distribution of the noise level added to conditioning frames (Predict1); None for none.
        text_drop_rate: probability that a sample's text is dropped, for guidance.
        device: where the result lies.
        generator_device: device type of the large normal draws. "cpu" (default) gives the same numbers on every
            machine; "cuda" is faster for large latents, with numbers of its own. Scalars are always drawn on the CPU.
    """
    positions = [int(p) for p in position]
    num_channels, num_frames, height, width = shape
    options = condition_frames or ConditionFrames(location="none")
    sigmas = [sigma.draw(g) for g in _one_after_another(seed, positions, "sigma")]
    augments = (
        [augment_sigma.draw(g) for g in _one_after_another(seed, positions, "augment_sigma")]
        if augment_sigma is not None
        else None
    )
    drop_text = [_open_uniform(g) < text_drop_rate for g in _one_after_another(seed, positions, "drop_text")]
    drop_condition = [
        _open_uniform(g) < options.drop_rate for g in _one_after_another(seed, positions, "drop_condition")
    ]
    num_condition_frames, indicator = _draw_condition_frames(positions, num_frames, seed, options)

    def normal(stream: str) -> Tensor:
        out = torch.empty((len(positions), num_channels, num_frames, height, width), device=generator_device)
        for row, generator in zip(out, _one_after_another(seed, positions, stream, generator_device), strict=True):
            row.normal_(generator=generator)
        return out.to(device)

    return TrainingDraw(
        sigma=torch.tensor(sigmas, dtype=torch.float32, device=device),
        epsilon=normal("epsilon"),
        augment_sigma=None if augments is None else torch.tensor(augments, dtype=torch.float32, device=device),
        augment_noise=None if augments is None else normal("augment_noise"),
        num_condition_frames=num_condition_frames.to(device),
        indicator=None if indicator is None else indicator.to(device),
        drop_condition=torch.tensor(drop_condition, dtype=torch.bool, device=device),
        drop_text=torch.tensor(drop_text, dtype=torch.bool, device=device),
    )


def architecture_invariant_noise(shape: Sequence[int], seed: int, *, device: torch.device | str = "cpu") -> Tensor:
    """Standard normal fp32 noise that is the same on every machine and device: NumPy's legacy Mersenne twister, drawn
    in fp64 in C order, then rounded. Seed 1 starts 1.6243454, -0.61175638. The Cosmos samplers start from it."""
    values = numpy.random.RandomState(seed).standard_normal(tuple(shape))
    return torch.from_numpy(values.astype(numpy.float32)).to(device)


def _draw_condition_frames(
    positions: list[int], num_frames: int, seed: int, options: ConditionFrames
) -> tuple[Tensor, Tensor | None]:
    if options.location == "none":
        return torch.zeros(len(positions), dtype=torch.int64), None
    if num_frames % options.num_views:
        raise ValueError(f"{num_frames} latent frames cannot be split into {options.num_views} views of equal length")
    per_view = num_frames // options.num_views
    generators = _one_after_another(seed, positions, "condition_frames")
    if options.location == "random":
        rows = torch.stack(
            [(torch.rand(per_view, generator=g, dtype=torch.float64) < options.rate).float() for g in generators]
        )
        return rows.sum(dim=1).long(), rows.repeat(1, options.num_views)
    span = options.maximum - options.minimum + 1
    counts = torch.tensor([min(options.minimum + int(span * _open_uniform(g)), per_view) for g in generators])
    return counts, frame_indicator(counts, num_frames, num_views=options.num_views)


def _open_uniform(generator: torch.Generator) -> float:
    """A uniform double strictly inside (0, 1): the inverse normal CDF has no value at 0."""
    value = float(torch.rand((), generator=generator, dtype=torch.float64))
    return value if value > 0.0 else 2.0**-54
