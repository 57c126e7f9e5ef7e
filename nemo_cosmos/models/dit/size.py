"""The numbers of a network that memory and speed are predicted from."""

from __future__ import annotations

from nemo_cosmos.models.dit.config import DiTConfig
from nemo_cosmos.planning.cost import NetworkSize


def network_size(config: DiTConfig) -> NetworkSize:
    """What the planner and the FLOP count need to know of ``config``."""
    learnable = config.position_embedding == "learnable"
    views = config.num_views * config.view_channels if config.multiview else 0
    if config.frame_repeat:
        views += 2 * config.view_channels
    rows, columns = config.max_height // config.patch_size, config.max_width // config.patch_size
    return NetworkSize(
        num_layers=config.num_layers,
        num_attention_heads=config.num_attention_heads,
        hidden_size=config.hidden_size,
        text_width=config.text_width,
        adaln_lora_dim=config.adaln_lora_dim,
        patch_features=config.patch_features,
        output_features=config.patch_size**2 * config.out_channels,
        position=config.position_embedding != "none",
        position_parameters=(config.max_frames + rows + columns) * config.hidden_size if learnable else 0,
        view_parameters=views,
    )
