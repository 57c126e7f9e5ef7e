"""From noise to a latent: the network inside a sampler, with guidance and given frames."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from nemo_cosmos.data.network_inputs import NetworkInputs
from nemo_cosmos.diffusion import (
    DenoiserInput,
    Prediction,
    architecture_invariant_noise,
    denoised,
    frame_indicator,
    guide,
)
from nemo_cosmos.diffusion.objectives import OBJECTIVES, Given, Objective
from nemo_cosmos.diffusion.samplers import Progress
from nemo_cosmos.inference.config import GenerationConfig
from nemo_cosmos.models.dit.config import DiTConfig


@dataclass(frozen=True)
class SamplingInputs:
    """What one latent is sampled from.

    Attributes:
        shape: (C, T, h, w) of the latent; of V views T = V x latent frames of one, one view after another.
        network: what the network is told, for a batch of one.
        negative_text: (1, M, width) embedding of the unconditional branch.
        seed: of the noise.
        condition: (1, C, n, h, w) normalised latent of the given frames, None without; of V views n = V x latent
            frames given to each.
        num_views: V.
    """

    shape: tuple[int, int, int, int]
    network: NetworkInputs
    negative_text: Tensor
    seed: int
    condition: Tensor | None = None
    num_views: int = 1


def sampling_objective(dit: DiTConfig, sigma_data: float | None = None) -> Objective:
    """The objective of a network's preset; ``sigma_data`` is what its weights were trained with, where known."""
    return OBJECTIVES[dit.objective].for_sampling(sigma_data=sigma_data, multiview=dit.multiview)


@torch.no_grad()
def sample_latent(
    network: nn.Module,
    dit: DiTConfig,
    inputs: SamplingInputs,
    config: GenerationConfig,
    *,
    sigma_data: float | None = None,
    progress: Progress | None = None,
) -> Tensor:
    """(1, C, T, h, w) fp32 normalised latent on the network's device.

    The noise follows from ``inputs.seed`` alone: every rank of a context-parallel group, and every kind of device,
    starts from the same.
    """
    device = next(network.parameters()).device
    objective = sampling_objective(dit, sigma_data)
    noise = architecture_invariant_noise((1, *inputs.shape), inputs.seed, device=device)
    denoiser = GuidedDenoiser(network, dit, objective, inputs, config, noise)
    return objective.sample(denoiser, noise, config.num_steps, sampler=config.sampler, progress=progress)


class GuidedDenoiser:
    """The network as a sampler sees it: (state, sigma) -> clean latent, with guidance and given frames inside."""

    def __init__(
        self,
        network: nn.Module,
        dit: DiTConfig,
        objective: Objective,
        inputs: SamplingInputs,
        config: GenerationConfig,
        noise: Tensor,
    ) -> None:
        device = noise.device
        self.network, self.dit, self.objective, self.config = network, dit, objective, config
        self.told, self.negative_text = inputs.network.to(device), inputs.negative_text.to(device)
        self.given: Given | None = None
        if inputs.condition is not None:
            clean, views = torch.zeros((1, *inputs.shape), device=device), inputs.num_views
            count = inputs.condition.shape[2] // views
            given = objective.clean(inputs.condition.to(device))
            clean.unflatten(2, (views, -1))[:, :, :, :count] = given.unflatten(2, (views, -1))
            indicator = frame_indicator(torch.tensor([count], device=device), inputs.shape[1], num_views=views)
            self.given = Given(clean, indicator, noise)

    def __call__(self, x: Tensor, sigma: Tensor) -> Prediction:
        inputs = self.network_input(x, sigma.expand(1))
        clean = denoised(self.objective.preconditioning, inputs, self._guided_output(inputs))
        return Prediction(clean=clean, state=inputs.state)

    def network_input(self, x: Tensor, sigma: Tensor) -> DenoiserInput:
        """What the network is fed at state x (1, C, T, h, w) and level sigma (1,)."""
        return self.objective.sampling_input(x, sigma, self.given, with_mask=self.dit.condition_mask)

    def _guided_output(self, inputs: DenoiserInput) -> Tensor:
        """Guidance on the network's output, which equals guidance on x0: both branches share state and level."""
        if self.config.guidance == 0:
            return self._output(inputs, self.told.text)
        if self.config.batched_guidance:
            both = self._output(inputs, torch.cat([self.told.text, self.negative_text]))
            conditional, unconditional = both.chunk(2)
        else:
            conditional = self._output(inputs, self.told.text)
            unconditional = self._output(inputs, self.negative_text)
        return guide(conditional, unconditional, self.config.guidance)

    def _output(self, inputs: DenoiserInput, text: Tensor) -> Tensor:
        copies = text.shape[0]
        mask = inputs.condition_mask if self.dit.condition_mask else None
        told = replace(self.told, text=text, condition_mask=mask).expand(copies)
        sample, timesteps = (value.expand(copies, *value.shape[1:]) for value in (inputs.sample, inputs.timesteps))
        return told.feed(self.network, sample, timesteps).float()
