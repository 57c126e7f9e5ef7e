"""Checkpoints: run folders, the original ``.pt`` layout, and networks loaded from either."""

from nemo_cosmos.checkpoint.load import load_network, load_original_file, network_config

__all__ = ["load_network", "load_original_file", "network_config"]
