"""What a family of models is trained and sampled with; training and inference call it and know no family."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import torch
from torch import Tensor
from typing_extensions import Self

from nemo_cosmos.diffusion.conditioning import DenoiserInput, denoised
from nemo_cosmos.diffusion.loss import DenoisingLoss, LogVariance, denoising_loss
from nemo_cosmos.diffusion.noise import ConditionFrames, SigmaDistribution, TrainingDraw, draw_training_noise
from nemo_cosmos.diffusion.preconditioning import Preconditioning, expand_to_latent
from nemo_cosmos.diffusion.samplers import (
    Denoiser,
    Progress,
    Sampler,
    edm_euler_sigmas,
    res_2ab_sigmas,
    sample_edm_euler,
    sample_res_2ab,
)


@dataclass(frozen=True)
class Given:
    """Latent frames that a sample is made from.

    Attributes:
        clean: (B, C, T, H, W) latent times sigma_data, of which the marked frames count.
        indicator: (B, T) float, 1 on given frames.
        noise: (B, C, T, H, W) standard normal, for objectives that disturb given frames.
    """

    clean: Tensor
    indicator: Tensor
    noise: Tensor


@dataclass(frozen=True)
class Objective(ABC):
    """One denoising objective: draws, inputs of the network, loss, sampler.

    Attributes:
        sigma: noise levels of training.
        condition_frames: given latent frames of training samples, None for networks without a condition mask.
        text_dropout: probability of training a sample without its caption.
        loss_on_given: given frames count with their error in the loss, instead of with none.
    """

    metric_names: ClassVar[tuple[str, ...]] = ("loss", "edm_mse", "edm_loss")
    """What :meth:`metrics` gives, in its order."""
    sampler: ClassVar[Sampler]
    """That of the released command lines."""
    own_settings: ClassVar[tuple[str, ...]] = ()
    """Settings of the section ``objective`` that no other objective reads."""

    sigma: SigmaDistribution = field(default_factory=SigmaDistribution)
    condition_frames: ConditionFrames | None = None
    text_dropout: float = 0.2
    loss_on_given: bool = False

    @classmethod
    @abstractmethod
    def from_settings(cls, settings: Any, *, takes_given: bool) -> Self:
        """The objective of a run.

        Args:
            settings: its section ``objective``.
            takes_given: the network has a condition mask.
        """

    @classmethod
    @abstractmethod
    def for_sampling(cls, *, sigma_data: float | None, multiview: bool) -> Self:
        """The objective of released or trained weights; ``sigma_data`` is what they were trained with, where known."""

    @staticmethod
    def _shared(settings: Any, takes_given: bool) -> dict[str, Any]:
        """What every objective reads of the settings."""
        given, (low, high) = settings.condition, settings.high_sigma_range
        sigma = SigmaDistribution(
            settings.p_mean, settings.p_std, settings.sigma_multiplier, settings.high_sigma_probability, (low, high)
        )
        return {
            "sigma": sigma,
            "condition_frames": (
                ConditionFrames(minimum=given.min_frames, maximum=given.max_frames) if takes_given else None
            ),
            "text_dropout": settings.text_dropout,
            "loss_on_given": given.compute_loss_for_condition_region,
        }

    @property
    @abstractmethod
    def preconditioning(self) -> Preconditioning:
        """How the network's output becomes a clean latent."""

    @property
    def augment_sigma(self) -> SigmaDistribution | None:
        """Noise levels of given frames in training, None where they stay clean."""
        return None

    @property
    def sigma_data(self) -> float:
        """Diffused latents are normalised ones times this."""
        return self.preconditioning.sigma_data

    def draw(
        self, positions: Sequence[int], shape: Sequence[int], *, seed: int, device: torch.device, num_views: int = 1
    ) -> TrainingDraw:
        """All that is random about a batch, the same on every rank that works on it.

        Args:
            positions: (B,) global sample positions.
            shape: (C, T, H, W) of a whole latent.
            seed: of the run.
            device: where it lies and where large draws are made.
            num_views: of every sample; the same number of its first frames is given of each.
        """
        given = self.condition_frames
        return draw_training_noise(
            positions,
            shape,
            seed=seed,
            sigma=self.sigma,
            condition_frames=None if given is None else replace(given, num_views=num_views),
            augment_sigma=None if given is None else self.augment_sigma,
            text_drop_rate=self.text_dropout,
            device=device,
            generator_device=device.type,
        )

    def times(self, frames: int) -> int:
        """How many timesteps the network is given for a sample of ``frames`` latent frames."""
        return 1

    def clean(self, latent: Tensor) -> Tensor:
        """What is diffused, fp32, of normalised latents (B, C, T, H, W)."""
        return self.sigma_data * latent.float()

    def training_input(self, clean: Tensor, draw: TrainingDraw) -> DenoiserInput:
        """The network's input for :meth:`clean` latents (B, C, T, H, W)."""
        noisy = clean + expand_to_latent(draw.sigma) * draw.epsilon
        return self._training_input(noisy, clean, draw)

    @abstractmethod
    def _training_input(self, noisy: Tensor, clean: Tensor, draw: TrainingDraw) -> DenoiserInput: ...

    def log_variance_head(self, seed: int) -> LogVariance | None:
        """A learned weighting of noise levels that is trained with the network, None without."""
        return None

    def loss(
        self,
        inputs: DenoiserInput,
        output: Tensor,
        clean: Tensor,
        draw: TrainingDraw,
        log_variance: Tensor | None = None,
    ) -> DenoisingLoss:
        """The loss of network output (B, C, T, H, W); ``log_variance`` (B,) is the head's."""
        prediction = denoised(self.preconditioning, inputs, output.float(), replace_given=not self.loss_on_given)
        return denoising_loss(
            prediction, clean, draw.sigma, self.preconditioning, log_variance=log_variance, loss_scale=self._loss_scale
        )

    _loss_scale: ClassVar[float] = 1.0

    @staticmethod
    def metrics(loss: DenoisingLoss) -> Tensor:
        """The numbers of :attr:`metric_names`, (3,)."""
        return torch.stack([loss.loss, loss.edm_mse, loss.edm_loss])

    @abstractmethod
    def sampling_input(
        self, x: Tensor, sigma: Tensor, given: Given | None, *, with_mask: bool = False
    ) -> DenoiserInput:
        """The network's input at state x (B, C, T, H, W) and level sigma (B,).

        Args:
            with_mask: the network has a condition mask, which is zero without given frames.
        """

    @abstractmethod
    def sigmas(self, sampler: Sampler, num_steps: int) -> Tensor:
        """The noise levels of a sampler."""

    def sample(
        self,
        denoiser: Denoiser,
        noise: Tensor,
        num_steps: int,
        *,
        sampler: Sampler | None = None,
        progress: Progress | None = None,
    ) -> Tensor:
        """Normalised latent (B, C, T, H, W) fp32 from standard normal noise; ``sampler`` None is the default one."""
        chosen = sampler or self.sampler
        run = sample_res_2ab if chosen == "res-2ab" else sample_edm_euler
        return run(denoiser, noise, self.sigmas(chosen, num_steps), progress=progress) / self.sigma_data


def levels(sampler: Sampler, num_steps: int, sigma_max: float, sigma_min: float) -> Tensor:
    """Levels of a sampler; EDM-Euler has a range of its own, that of the released command lines."""
    if sampler == "res-2ab":
        return res_2ab_sigmas(num_steps, sigma_max=sigma_max, sigma_min=sigma_min)
    return edm_euler_sigmas(num_steps)
