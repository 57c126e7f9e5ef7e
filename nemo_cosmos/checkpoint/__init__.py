"""Checkpoints: run folders, the original ``.pt`` layout, diffusers folders, and networks loaded from any of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nemo_cosmos.checkpoint.load import load_network, load_original_file, network_config

__all__ = ["load_network", "load_original_file", "network_config"]


def __getattr__(name: str) -> Any:
    # Who reads names of files alone shall not wait for torch and Megatron.
    if name in __all__:
        from nemo_cosmos.checkpoint import load

        return getattr(load, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
