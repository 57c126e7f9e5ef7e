"""Objectives by the name that families choose them with."""

from nemo_cosmos.diffusion.objectives.base import Given, Objective
from nemo_cosmos.diffusion.objectives.edm import EDMObjective
from nemo_cosmos.diffusion.objectives.rectified_flow import RectifiedFlowObjective

OBJECTIVES: dict[str, type[Objective]] = {"edm": EDMObjective, "rectified_flow": RectifiedFlowObjective}
"""By the name in ``FAMILIES`` and ``conf/objective/NAME.yaml``."""

__all__ = ["OBJECTIVES", "EDMObjective", "Given", "Objective", "RectifiedFlowObjective"]
