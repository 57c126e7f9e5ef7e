"""A network from a run folder or a file in the original layout."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nemo_cosmos.checkpoint.files import MODEL_CONFIG, Weights, latest_step, read_tensors, weights_file
from nemo_cosmos.errors import InputError
from nemo_cosmos.models.dit import CosmosDiT, DiTConfig, build_dit, transformer_config
from nemo_cosmos.parallel.groups import ParallelGroups


def network_config(path: str | Path) -> DiTConfig:
    """The network that a run folder (or its ``checkpoints`` folder) trains."""
    file = _checkpoints_folder(Path(path)) / MODEL_CONFIG
    if not file.is_file():
        raise InputError(f"{file}: not found; give a run folder that nemo-cosmos train has saved to, or a .pt file")
    return DiTConfig.from_dict(json.loads(file.read_text()))


def load_original_file(path: str | Path) -> dict[str, Tensor]:
    """The tensors of a released or exported ``.pt`` file, memory mapped."""
    return read_tensors(Path(path))


def load_network(
    path: str | Path,
    *,
    weights: Weights = "ema",
    preset: str | None = None,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    context_group: Any = None,
    **overrides: Any,
) -> CosmosDiT:
    """A network ready for inference.

    Args:
        path: a run folder, its ``checkpoints`` folder, or a ``.pt`` file in the original layout.
        weights: which of a run's exported weights; a file is taken as it is.
        preset: the network of a file that lies outside a run folder; ``overrides`` are fields of its configuration.
        context_group: process group over which one sample's tokens are split.

    Raises:
        InputError: nothing to load there, or the tensors do not fit the network.
    """
    path = Path(path)
    if path.is_file():
        file = path
        if preset is not None:
            config = DiTConfig.preset(preset, **overrides)
        elif (path.parent / MODEL_CONFIG).is_file():
            config = network_config(path.parent)
        else:
            raise InputError(f"{path}: say which network it holds (preset=...), there is no {MODEL_CONFIG} beside it")
    else:
        folder = _checkpoints_folder(path)
        step = latest_step(folder)
        if step is None:
            raise InputError(f"{path}: no checkpoint; expected {folder}/latest_checkpoint.txt of a training run")
        file = weights_file(folder, step, weights)
        if not file.is_file():
            raise InputError(
                f"{file}: not found; the run saved no {weights} weights there (checkpoint.export, ema.enabled)"
            )
        config = network_config(folder)
    groups = ParallelGroups(context=context_group)
    with torch.device("meta"):
        net = build_dit(config, transformer=transformer_config(config, dtype=dtype), groups=groups)
    net = net.to_empty(device=device)
    net.load_original(load_original_file(file))
    return net.eval().requires_grad_(False)


def _checkpoints_folder(path: Path) -> Path:
    return path / "checkpoints" if (path / "checkpoints").is_dir() else path
