"""The objective of a network with the settings of its configuration."""

from __future__ import annotations

from operator import attrgetter

from nemo_cosmos.config import ObjectiveConfig
from nemo_cosmos.diffusion.objectives import OBJECTIVES, Objective
from nemo_cosmos.errors import InputError
from nemo_cosmos.models.dit import DiTConfig


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
    for key in settings_of_others(settings.name):
        value = attrgetter(key)(settings)
        if value != attrgetter(key)(defaults):
            raise InputError(f"objective.{key}={value} has no effect with objective.name={settings.name}; remove it")


def settings_of_others(name: str) -> list[str]:
    """Settings that the objective ``name`` does not read."""
    return [key for other, kind in OBJECTIVES.items() if other != name for key in kind.own_settings]


def training_objective(settings: ObjectiveConfig, dit: DiTConfig) -> Objective:
    """What the network is trained with; networks without a condition mask get no given frames.

    Raises:
        InputError: the settings are not of the network's objective.
    """
    check_objective(settings, dit)
    return OBJECTIVES[settings.name].from_settings(settings, takes_given=dit.condition_mask)
