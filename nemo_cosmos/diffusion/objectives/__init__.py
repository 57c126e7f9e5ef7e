"""Objectives by the name that presets choose them with."""

from nemo_cosmos.diffusion.objectives.base import Given, Objective
from nemo_cosmos.diffusion.objectives.edm import EDMObjective
from nemo_cosmos.diffusion.objectives.rectified_flow import RectifiedFlowObjective

__all__ = ["EDMObjective", "Given", "Objective", "RectifiedFlowObjective"]
