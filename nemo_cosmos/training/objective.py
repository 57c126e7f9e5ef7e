"""The objective of a network with the settings of its configuration."""

from __future__ import annotations

from nemo_cosmos.config import DiffusionConfig
from nemo_cosmos.diffusion.noise import ConditionFrames, SigmaDistribution
from nemo_cosmos.diffusion.objectives import EDMObjective, Objective
from nemo_cosmos.errors import InputError
from nemo_cosmos.models.dit import DiTConfig


def training_objective(settings: DiffusionConfig, dit: DiTConfig) -> Objective:
    """What the network is trained with; networks without a condition mask get no given frames.

    Raises:
        InputError: the settings are not of the network's objective.
    """
    if dit.objective != "edm":
        raise InputError(f"diffusion: these are settings of edm, the network is trained with {dit.objective}")
    given = settings.condition
    return EDMObjective(
        sigma=SigmaDistribution(settings.p_mean, settings.p_std, settings.sigma_multiplier),
        condition_frames=(
            ConditionFrames(minimum=given.min_frames, maximum=given.max_frames) if dit.condition_mask else None
        ),
        text_dropout=settings.text_dropout,
        loss_on_given=given.compute_loss_for_condition_region,
        data_deviation=settings.sigma_data,
        augment=SigmaDistribution(given.augment_sigma_mean, given.augment_sigma_std, given.augment_sigma_multiplier),
        log_variance=settings.loss_add_logvar,
    )
