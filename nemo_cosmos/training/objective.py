"""The objective of a network with the settings of its configuration."""

from __future__ import annotations

from operator import attrgetter

from nemo_cosmos.config import ObjectiveConfig
from nemo_cosmos.diffusion.noise import ConditionFrames, SigmaDistribution
from nemo_cosmos.diffusion.objectives import EDMObjective, Objective, RectifiedFlowObjective
from nemo_cosmos.errors import InputError
from nemo_cosmos.models.dit import DiTConfig

READ_BY_ONE = {
    "edm": (
        "sigma_data",
        "loss_add_logvar",
        "condition.augment_sigma_mean",
        "condition.augment_sigma_std",
        "condition.augment_sigma_multiplier",
    ),
    "rectified_flow": ("condition.sigma_conditional",),
}
"""Settings that a single objective reads; all others are everybody's."""


def check_objective(settings: ObjectiveConfig, dit: DiTConfig) -> None:
    """Refuse settings that are not of the network's objective.

    Raises:
        InputError: they name another objective, or set what the network's does not read.
    """
    if settings.name != dit.objective:
        raise InputError(
            f"objective.name={settings.name}: the network is trained with {dit.objective}: choose "
            f"objective={dit.objective}"
        )
    low, *rest = settings.high_sigma_range
    if len(rest) != 1 or not low < rest[0]:
        raise InputError(f"objective.high_sigma_range={settings.high_sigma_range}: expected [lowest,highest]")
    given = settings.condition
    if given.min_frames > given.max_frames:
        raise InputError(
            f"objective.condition.min_frames={given.min_frames} is more than max_frames={given.max_frames}"
        )
    defaults = ObjectiveConfig()
    for name, keys in READ_BY_ONE.items():
        for key in keys if name != settings.name else ():
            value = attrgetter(key)(settings)
            if value != attrgetter(key)(defaults):
                raise InputError(
                    f"objective.{key}={value} has no effect with objective.name={settings.name}; remove it"
                )


def training_objective(settings: ObjectiveConfig, dit: DiTConfig) -> Objective:
    """What the network is trained with; networks without a condition mask get no given frames.

    Raises:
        InputError: the settings are not of the network's objective.
    """
    check_objective(settings, dit)
    return OBJECTIVES[settings.name](settings, dit)


def _edm(settings: ObjectiveConfig, dit: DiTConfig) -> Objective:
    given = settings.condition
    return EDMObjective(
        sigma=_sigma(settings),
        condition_frames=_condition_frames(settings, dit),
        text_dropout=settings.text_dropout,
        loss_on_given=given.compute_loss_for_condition_region,
        data_deviation=settings.sigma_data,
        augment=SigmaDistribution(given.augment_sigma_mean, given.augment_sigma_std, given.augment_sigma_multiplier),
        log_variance=settings.loss_add_logvar,
    )


def _rectified_flow(settings: ObjectiveConfig, dit: DiTConfig) -> Objective:
    return RectifiedFlowObjective(
        sigma=_sigma(settings),
        condition_frames=_condition_frames(settings, dit),
        text_dropout=settings.text_dropout,
        loss_on_given=settings.condition.compute_loss_for_condition_region,
        sigma_conditional=settings.condition.sigma_conditional,
    )


OBJECTIVES = {"edm": _edm, "rectified_flow": _rectified_flow}
"""What makes each objective from its settings."""


def _sigma(settings: ObjectiveConfig) -> SigmaDistribution:
    low, high = settings.high_sigma_range
    return SigmaDistribution(
        settings.p_mean, settings.p_std, settings.sigma_multiplier, settings.high_sigma_probability, (low, high)
    )


def _condition_frames(settings: ObjectiveConfig, dit: DiTConfig) -> ConditionFrames | None:
    if not dit.condition_mask:
        return None
    return ConditionFrames(minimum=settings.condition.min_frames, maximum=settings.condition.max_frames)
