"""From noise to a latent: the network inside a sampler, with guidance and given frames."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from nemo_cosmos.diffusion import (
    DenoiserInput,
    EDMPreconditioning,
    Preconditioning,
    Prediction,
    RectifiedFlowPreconditioning,
    architecture_invariant_noise,
    augmented_input,
    denoised,
    edm_euler_sigmas,
    frame_indicator,
    frame_replace_input,
    guide,
    plain_input,
    res_2ab_sigmas,
    sample_edm_euler,
    sample_res_2ab,
)
from nemo_cosmos.diffusion.samplers import Progress
from nemo_cosmos.inference.config import GenerationConfig, Sampler
from nemo_cosmos.models.dit.config import DiTConfig

CONDITION_AUGMENT_SIGMA = 0.001
"""Noise that Predict1 adds to given frames when sampling; below this level they are denoised with the rest."""


@dataclass(frozen=True)
class SamplingInputs:
    """What one latent is sampled from.

    Attributes:
        shape: (C, T, h, w) of the latent.
        text: (1, M, width) embedding of the prompt.
        negative_text: (1, M, width) embedding of the unconditional branch.
        fps: frame rate of the pixels.
        condition: (1, C, n, h, w) normalised latent of the given frames, None without.
        padding_mask: (1, 1, h, w) 1 = padded, None when nothing is.
        seed: of the noise.
    """

    shape: tuple[int, int, int, int]
    text: Tensor
    negative_text: Tensor
    fps: float
    seed: int
    condition: Tensor | None = None
    padding_mask: Tensor | None = None


def default_sampler(dit: DiTConfig) -> Sampler:
    """The sampler of the released command lines of a family."""
    return "edm-euler" if dit.family == "predict1" else "res-2ab"


def preconditioning_of(dit: DiTConfig, sigma_data: float | None = None) -> Preconditioning:
    if dit.family == "predict1":
        return EDMPreconditioning() if sigma_data is None else EDMPreconditioning(sigma_data)
    return RectifiedFlowPreconditioning()


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
    preconditioning = preconditioning_of(dit, sigma_data)
    noise = architecture_invariant_noise((1, *inputs.shape), inputs.seed, device=device)
    denoiser = GuidedDenoiser(network, dit, preconditioning, inputs, config, noise)
    if (config.sampler or default_sampler(dit)) == "res-2ab":
        # Multiview Predict2 is sampled over a wider range of levels.
        top, bottom = (200.0, 0.01) if dit.family == "predict2" and dit.multiview else (80.0, 0.002)
        sigmas = res_2ab_sigmas(config.num_steps, sigma_max=top, sigma_min=bottom)
        result = sample_res_2ab(denoiser, noise, sigmas, progress=progress)
    else:
        result = sample_edm_euler(denoiser, noise, edm_euler_sigmas(config.num_steps), progress=progress)
    return result / preconditioning.sigma_data


class GuidedDenoiser:
    """The network as a sampler sees it: (state, sigma) -> clean latent, with guidance and given frames inside."""

    def __init__(
        self,
        network: nn.Module,
        dit: DiTConfig,
        preconditioning: Preconditioning,
        inputs: SamplingInputs,
        config: GenerationConfig,
        noise: Tensor,
    ) -> None:
        device = noise.device
        self.network, self.dit, self.preconditioning, self.config = network, dit, preconditioning, config
        self.text, self.negative_text = inputs.text.to(device), inputs.negative_text.to(device)
        self.fps = torch.tensor([inputs.fps], dtype=torch.float32, device=device)
        self.padding_mask = None if inputs.padding_mask is None else inputs.padding_mask.to(device, torch.float32)
        self.noise = noise
        self.clean: Tensor | None = None
        if inputs.condition is not None:
            given = inputs.condition.to(device, torch.float32) * preconditioning.sigma_data
            self.clean = torch.zeros((1, *inputs.shape), device=device)
            self.clean[:, :, : given.shape[2]] = given
            count = torch.tensor([given.shape[2]], device=device)
            self.indicator = frame_indicator(count, inputs.shape[1])

    def __call__(self, x: Tensor, sigma: Tensor) -> Prediction:
        inputs = self.network_input(x, sigma.expand(1))
        clean = denoised(self.preconditioning, inputs, self._guided_output(inputs))
        return Prediction(clean=clean, state=inputs.state)

    def network_input(self, x: Tensor, sigma: Tensor) -> DenoiserInput:
        """What the network is fed at state x (1, C, T, h, w) and level sigma (1,)."""
        is_predict2 = self.dit.family == "predict2"
        if self.clean is None:
            return plain_input(
                self.preconditioning, x, sigma, per_frame_time=is_predict2, with_mask=self.dit.condition_mask
            )
        if is_predict2:
            return frame_replace_input(self.preconditioning, x, sigma, self.clean, self.indicator)
        if sigma.item() <= CONDITION_AUGMENT_SIGMA:
            # The given frames hold more noise than the state by now: all is denoised alike, the mask stays.
            mask = self.indicator[:, None, :, None, None].expand(-1, -1, -1, *x.shape[-2:])
            return replace(plain_input(self.preconditioning, x, sigma), condition_mask=mask)
        return augmented_input(
            self.preconditioning,
            x,
            sigma,
            self.clean,
            self.indicator,
            augment_sigma=torch.full_like(sigma, CONDITION_AUGMENT_SIGMA),
            augment_noise=self.noise,
        )

    def _guided_output(self, inputs: DenoiserInput) -> Tensor:
        """Guidance on the network's output, which equals guidance on x0: both branches share state and level."""
        if self.config.guidance == 0:
            return self._output(inputs, self.text)
        if self.config.batched_guidance:
            both = self._output(inputs, torch.cat([self.text, self.negative_text]))
            conditional, unconditional = both.chunk(2)
        else:
            conditional = self._output(inputs, self.text)
            unconditional = self._output(inputs, self.negative_text)
        return guide(conditional, unconditional, self.config.guidance)

    def _output(self, inputs: DenoiserInput, text: Tensor) -> Tensor:
        copies = text.shape[0]

        def repeat(value: Tensor | None) -> Tensor | None:
            return None if value is None else value.expand(copies, *value.shape[1:])

        options = {"condition_mask": repeat(inputs.condition_mask)} if self.dit.condition_mask else {}
        output = self.network(
            repeat(inputs.sample),
            repeat(inputs.timesteps),
            text,
            fps=repeat(self.fps),
            padding_mask=repeat(self.padding_mask),
            **options,
        )
        return output.float()
