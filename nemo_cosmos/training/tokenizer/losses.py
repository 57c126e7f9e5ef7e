"""The training loss: scheduled terms, each reported unweighted and weighted."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor, nn

from nemo_cosmos.errors import InputError
from nemo_cosmos.models.tokenizer import TokenizerConfig, TokenizerOutput
from nemo_cosmos.training.tokenizer.adversarial import adaptive_weight, generator_loss
from nemo_cosmos.training.tokenizer.config import LossConfig
from nemo_cosmos.training.tokenizer.flow import flow_distance, make_estimator
from nemo_cosmos.training.tokenizer.perceptual import Vgg16Features, feature_distance, frames_of, gram_distance
from nemo_cosmos.training.tokenizer.raft import RaftLarge, check_size


def scheduled_weight(boundaries: Sequence[int], values: Sequence[float], step: int) -> float:
    """values[i] for the first i with step < boundaries[i], else the last value."""
    for boundary, value in zip(boundaries, values, strict=False):
        if step < boundary:
            return value
    return values[-1]


@dataclass
class LossTerms:
    """Unweighted and weighted value of every active term; ``total`` is the sum of the weighted ones."""

    raw: dict[str, Tensor] = field(default_factory=dict)
    weighted: dict[str, Tensor] = field(default_factory=dict)

    def add(self, name: str, value: Tensor, weight: float | Tensor) -> None:
        self.raw[name] = value
        self.weighted[name] = value * weight

    @property
    def total(self) -> Tensor:
        return torch.stack(list(self.weighted.values())).sum()

    @property
    def finite(self) -> Tensor:
        """Whether every term is finite, as a scalar."""
        return torch.isfinite(torch.stack([value.detach().float() for value in self.raw.values()])).all()


class _Schedule(Protocol):
    enabled: bool
    boundaries: list[int]
    values: list[float]


class TokenizerLoss(nn.Module):
    """All terms of :class:`LossConfig` for one tokenizer.

    Args:
        config: the terms; one that is off costs nothing, one with weight 0 at a step is not computed there.
        tokenizer: refuses terms that this tokenizer cannot have.
        checkpointing: the flow estimator's activations are recomputed in the backward pass.

    Raises:
        InputError: a schedule whose lists do not fit, a wrong weights file, a KL term without a VAE bottleneck, or
            windows that do not overlap.
    """

    def __init__(self, config: LossConfig, tokenizer: TokenizerConfig, checkpointing: bool = False) -> None:
        super().__init__()
        self.config = config
        self.checkpointing = checkpointing
        schedules: dict[str, _Schedule] = {
            "color": config.color,
            "perceptual": config.perceptual,
            "perceptual.gram": config.perceptual.gram,
            "flow": config.flow,
            "kl": config.kl,
            "video_consistency": config.video_consistency,
            "adversarial": config.adversarial,
        }
        for name, schedule in schedules.items():
            bounds, values = schedule.boundaries, schedule.values
            if not values or len(values) not in (len(bounds), len(bounds) + 1) or sorted(bounds) != list(bounds):
                raise InputError(
                    f"loss.{name}: boundaries {list(bounds)} and values {list(values)} do not fit; expected rising "
                    "steps and as many values, or one more"
                )
        if not any(schedule.enabled for schedule in schedules.values()):
            raise InputError("every loss term is off: enable at least loss.color")
        if config.kl.enabled and tokenizer.formulation != "VAE":
            raise InputError(
                f"loss.kl needs the VAE formulation, and {tokenizer.name} is "
                f"{'discrete' if tokenizer.discrete else 'a plain autoencoder'}: set loss.kl.enabled=false"
            )
        windows = config.video_consistency
        if windows.enabled and (
            windows.step >= windows.num_frames or (windows.num_frames - 1) % tokenizer.temporal_compression
        ):
            raise InputError(
                f"loss.video_consistency: windows of {windows.num_frames} frames every {windows.step}; expected "
                f"1 + k*{tokenizer.temporal_compression} frames and a smaller step, so that windows overlap"
            )
        wants_vgg = config.perceptual.enabled or config.perceptual.gram.enabled
        self.vgg = Vgg16Features(config.perceptual.weights) if wants_vgg else None
        self.estimator = make_estimator(config.flow) if config.flow.enabled else None

    def check_crop(self, height: int, width: int) -> None:
        """InputError when a term cannot take clips of this size in pixels; said before its weight first rises."""
        if isinstance(self.estimator, RaftLarge):
            check_size(height // self.config.flow.scale, width // self.config.flow.scale)

    def forward(
        self,
        step: int,
        video: Tensor,
        output: TokenizerOutput,
        *,
        reconstruct: Callable[[Tensor], Tensor],
        discriminator: nn.Module | None = None,
        last_layer: Tensor | None = None,
    ) -> LossTerms:
        """The terms at optimizer step ``step``.

        Args:
            video: (B, 3, T, H, W) in [−1, 1].
            output: the network's answer to it.
            reconstruct: video to reconstruction with gradients, for the consistency windows.
            discriminator: for the adversarial term; left out by validation, which then does not have that term.
            last_layer: the decoder's last weight, for the adaptive weight.
        """
        config, terms = self.config, LossTerms()
        fake = output.reconstruction.float()
        if config.color.enabled:
            weight = scheduled_weight(config.color.boundaries, config.color.values, step)
            terms.add("color", (video - fake).abs().mean(), weight)
        self._add_perceptual(step, video, fake, terms)
        if config.flow.enabled and self.estimator is not None:
            weight = scheduled_weight(config.flow.boundaries, config.flow.values, step)
            if weight > 0 and video.shape[2] > 1:
                value = flow_distance(self.estimator, video, fake, config.flow.scale, self.checkpointing)
                terms.add("flow", value, weight)
        if config.kl.enabled and output.moments is not None:
            weight = scheduled_weight(config.kl.boundaries, config.kl.values, step)
            terms.add("kl", kl_divergence(output.moments), weight)
        windows = config.video_consistency
        if windows.enabled:
            weight = scheduled_weight(windows.boundaries, windows.values, step)
            if weight > 0:
                value = window_consistency(video, reconstruct, windows.num_frames, windows.step)
                terms.add("video_consistency", value, weight)
        if config.adversarial.enabled and discriminator is not None:
            weight = scheduled_weight(config.adversarial.boundaries, config.adversarial.values, step)
            if weight > 0:
                value = generator_loss(discriminator, video, fake, config.adversarial.feature_matching)
                factor: float | Tensor = weight
                if config.adversarial.adaptive and last_layer is not None and terms.weighted:
                    factor = weight * adaptive_weight(terms.total, value, last_layer)
                terms.add("adversarial", value, factor)
        if not terms.weighted:
            raise InputError(f"no loss term has weight at step {step}: check the loss schedules")
        return terms

    def _add_perceptual(self, step: int, video: Tensor, fake: Tensor, terms: LossTerms) -> None:
        config = self.config.perceptual
        weight = scheduled_weight(config.boundaries, config.values, step) if config.enabled else 0.0
        gram = scheduled_weight(config.gram.boundaries, config.gram.values, step) if config.gram.enabled else 0.0
        if self.vgg is None or (weight == 0.0 and gram == 0.0):
            return
        with torch.no_grad():
            real_maps = self.vgg(frames_of(video))
        fake_maps = self.vgg(frames_of(fake))
        if weight > 0:
            terms.add("perceptual", feature_distance(real_maps, fake_maps), weight)
        if gram > 0:
            terms.add("gram", gram_distance(real_maps, fake_maps, video.shape[0]), gram)


def kl_divergence(moments: Tensor) -> Tensor:
    """Mean of ½(μ² + e^lv − 1 − lv) for moments (B, 2C, …), lv clamped to [−30, 20]."""
    mean, logvar = moments.float().chunk(2, dim=1)
    logvar = logvar.clamp(-30.0, 20.0)
    return 0.5 * (mean.square() + logvar.exp() - 1.0 - logvar).mean()


def window_consistency(video: Tensor, reconstruct: Callable[[Tensor], Tensor], num_frames: int, step: int) -> Tensor:
    """L1 distance between the reconstructions of consecutive overlapping windows on the frames they share.

    InputError when the clip holds fewer than two windows.
    """
    starts = list(range(0, video.shape[2] - num_frames + 1, step))
    if len(starts) < 2:
        raise InputError(
            f"loss.video_consistency: a clip of {video.shape[2]} frames holds no two windows of {num_frames} frames "
            f"every {step}; make data.num_frames larger or the windows shorter"
        )
    windows = torch.stack([video[:, :, s : s + num_frames] for s in starts], dim=1)
    output = reconstruct(windows.flatten(0, 1)).float().unflatten(0, (video.shape[0], len(starts)))
    return (output[:, :-1, :, step:] - output[:, 1:, :, : num_frames - step]).abs().mean()
