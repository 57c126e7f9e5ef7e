"""Cosmos-Predict2: rectified flow; given frames enter clean, with a timestep of their own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from nemo_cosmos.diffusion.conditioning import DenoiserInput, frame_replace_input, plain_input
from nemo_cosmos.diffusion.noise import TrainingDraw
from nemo_cosmos.diffusion.objectives.base import Given, Objective, levels
from nemo_cosmos.diffusion.preconditioning import RectifiedFlowPreconditioning
from nemo_cosmos.diffusion.samplers import Sampler


@dataclass(frozen=True)
class RectifiedFlowObjective(Objective):
    """Rectified flow in EDM variables, times per latent frame, the loss in velocity form times ten.

    Attributes:
        sigma_conditional: noise level that given frames are said to have.
        sampling_range: highest and lowest level of RES-2ab.
    """

    sampler: ClassVar[Sampler] = "res-2ab"
    own_settings: ClassVar[tuple[str, ...]] = ("condition.sigma_conditional",)
    _loss_scale: ClassVar[float] = 10.0

    sigma_conditional: float = 1e-4
    sampling_range: tuple[float, float] = (80.0, 0.002)

    @classmethod
    def from_settings(cls, settings: Any, *, takes_given: bool) -> RectifiedFlowObjective:
        return cls(**cls._shared(settings, takes_given), sigma_conditional=settings.condition.sigma_conditional)

    @classmethod
    def for_sampling(cls, *, sigma_data: float | None, multiview: bool) -> RectifiedFlowObjective:
        # Multiview networks are sampled over a wider range of levels; the deviation of the data is 1 by definition.
        return cls(sampling_range=(200.0, 0.01) if multiview else (80.0, 0.002))

    @property
    def preconditioning(self) -> RectifiedFlowPreconditioning:
        return RectifiedFlowPreconditioning()

    def times(self, frames: int) -> int:
        return frames

    def _training_input(self, noisy: Tensor, clean: Tensor, draw: TrainingDraw) -> DenoiserInput:
        if draw.indicator is None:
            return plain_input(self.preconditioning, noisy, draw.sigma, per_frame_time=True)
        return self._with_given(noisy, draw.sigma, clean, draw.indicator)

    def sampling_input(
        self, x: Tensor, sigma: Tensor, given: Given | None, *, with_mask: bool = False
    ) -> DenoiserInput:
        if given is None:
            return plain_input(self.preconditioning, x, sigma, per_frame_time=True, with_mask=with_mask)
        return self._with_given(x, sigma, given.clean, given.indicator)

    def _with_given(self, x: Tensor, sigma: Tensor, clean: Tensor, indicator: Tensor) -> DenoiserInput:
        return frame_replace_input(
            self.preconditioning, x, sigma, clean, indicator, sigma_conditional=self.sigma_conditional
        )

    def sigmas(self, sampler: Sampler, num_steps: int) -> Tensor:
        return levels(sampler, num_steps, *self.sampling_range)
