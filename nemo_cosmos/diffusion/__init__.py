"""Diffusion mathematics on tensors: no network, no configuration file, no global state."""

from nemo_cosmos.diffusion.conditioning import (
    DenoiserInput,
    augmented_input,
    denoised,
    frame_indicator,
    frame_replace_input,
    plain_input,
)
from nemo_cosmos.diffusion.ema import power_ema_beta, power_ema_exponent, update_ema
from nemo_cosmos.diffusion.guidance import guide
from nemo_cosmos.diffusion.loss import DenoisingLoss, LogVariance, denoising_loss
from nemo_cosmos.diffusion.noise import (
    ConditionFrames,
    SigmaDistribution,
    TrainingDraw,
    architecture_invariant_noise,
    draw_training_noise,
    sample_generator,
)
from nemo_cosmos.diffusion.preconditioning import (
    EDMPreconditioning,
    Preconditioning,
    RectifiedFlowPreconditioning,
    clean_prediction,
    expand_to_latent,
    output_for_clean,
)
from nemo_cosmos.diffusion.samplers import (
    Prediction,
    edm_euler_sigmas,
    karras_sigmas,
    res_2ab_sigmas,
    sample_edm_euler,
    sample_res_2ab,
)

__all__ = [
    "ConditionFrames",
    "DenoiserInput",
    "DenoisingLoss",
    "EDMPreconditioning",
    "LogVariance",
    "Preconditioning",
    "Prediction",
    "RectifiedFlowPreconditioning",
    "SigmaDistribution",
    "TrainingDraw",
    "architecture_invariant_noise",
    "augmented_input",
    "clean_prediction",
    "denoised",
    "denoising_loss",
    "draw_training_noise",
    "edm_euler_sigmas",
    "expand_to_latent",
    "frame_indicator",
    "frame_replace_input",
    "guide",
    "karras_sigmas",
    "output_for_clean",
    "plain_input",
    "power_ema_beta",
    "power_ema_exponent",
    "res_2ab_sigmas",
    "sample_edm_euler",
    "sample_generator",
    "sample_res_2ab",
    "update_ema",
]
