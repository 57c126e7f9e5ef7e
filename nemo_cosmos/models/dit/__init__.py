"""The Cosmos diffusion transformer of Predict1 and Predict2."""

from nemo_cosmos.models.dit.config import PRESETS, DiTConfig
from nemo_cosmos.models.dit.model import CosmosDiT, LayerOptions, build_dit, transformer_config
from nemo_cosmos.models.dit.state_dict import LoadReport

__all__ = ["PRESETS", "CosmosDiT", "DiTConfig", "LayerOptions", "LoadReport", "build_dit", "transformer_config"]
