"""Cosmos-Predict1: EDM with a learned log-variance; given frames get a little noise of their own."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from nemo_cosmos.diffusion.conditioning import DenoiserInput, augmented_input, plain_input
from nemo_cosmos.diffusion.loss import LogVariance
from nemo_cosmos.diffusion.noise import SigmaDistribution, TrainingDraw
from nemo_cosmos.diffusion.objectives.base import Given, Objective, levels
from nemo_cosmos.diffusion.preconditioning import EDMPreconditioning
from nemo_cosmos.diffusion.samplers import Sampler

SAMPLING_AUGMENT_SIGMA = 0.001
"""Noise that is added to given frames when sampling; below this level they are denoised with the rest."""


@dataclass(frozen=True)
class EDMObjective(Objective):
    """Karras et al. 2022 as Cosmos-Predict1 uses it.

    Attributes:
        data_deviation: standard deviation of the latents as the network sees them.
        augment: noise levels of given frames in training.
        log_variance: weigh the loss with a learned log-variance; it can become negative.
    """

    sampler: ClassVar[Sampler] = "edm-euler"
    own_settings: ClassVar[tuple[str, ...]] = (
        "sigma_data",
        "loss_add_logvar",
        "condition.augment_sigma_mean",
        "condition.augment_sigma_std",
        "condition.augment_sigma_multiplier",
    )

    data_deviation: float = 0.5
    augment: SigmaDistribution = field(default_factory=lambda: SigmaDistribution(-3.0, 2.0))
    log_variance: bool = True

    @classmethod
    def from_settings(cls, settings: Any, *, takes_given: bool) -> EDMObjective:
        given = settings.condition
        return cls(
            **cls._shared(settings, takes_given),
            data_deviation=settings.sigma_data,
            augment=SigmaDistribution(
                given.augment_sigma_mean, given.augment_sigma_std, given.augment_sigma_multiplier
            ),
            log_variance=settings.loss_add_logvar,
        )

    @classmethod
    def for_sampling(cls, *, sigma_data: float | None, multiview: bool) -> EDMObjective:
        return cls() if sigma_data is None else cls(data_deviation=sigma_data)

    @property
    def preconditioning(self) -> EDMPreconditioning:
        return EDMPreconditioning(self.data_deviation)

    @property
    def augment_sigma(self) -> SigmaDistribution:
        return self.augment

    def log_variance_head(self, seed: int) -> LogVariance | None:
        return LogVariance(seed=seed) if self.log_variance else None

    def _training_input(self, noisy: Tensor, clean: Tensor, draw: TrainingDraw) -> DenoiserInput:
        if draw.indicator is None:
            return plain_input(self.preconditioning, noisy, draw.sigma)
        assert draw.augment_sigma is not None and draw.augment_noise is not None
        return augmented_input(
            self.preconditioning,
            noisy,
            draw.sigma,
            clean,
            draw.indicator,
            augment_sigma=draw.augment_sigma,
            augment_noise=draw.augment_noise,
        )

    def sampling_input(
        self, x: Tensor, sigma: Tensor, given: Given | None, *, with_mask: bool = False
    ) -> DenoiserInput:
        if given is None:
            return plain_input(self.preconditioning, x, sigma, with_mask=with_mask)
        if sigma.max().item() <= SAMPLING_AUGMENT_SIGMA:
            # The given frames hold more noise than the state by now: all is denoised alike, the mask stays.
            mask = given.indicator[:, None, :, None, None].expand(-1, -1, -1, *x.shape[-2:])
            return replace(plain_input(self.preconditioning, x, sigma), condition_mask=mask)
        return augmented_input(
            self.preconditioning,
            x,
            sigma,
            given.clean,
            given.indicator,
            augment_sigma=torch.full_like(sigma, SAMPLING_AUGMENT_SIGMA),
            augment_noise=given.noise,
        )

    def sigmas(self, sampler: Sampler, num_steps: int) -> Tensor:
        return levels(sampler, num_steps, 80.0, 0.002)
