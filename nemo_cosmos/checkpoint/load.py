"""A network from a run folder, a file in the original layout or a diffusers folder."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nemo_cosmos.checkpoint.adapters import Adapters, choices, with_adapters
from nemo_cosmos.checkpoint.diffusers import config_from_diffusers, is_diffusers_folder
from nemo_cosmos.checkpoint.files import Weights, read_tensors
from nemo_cosmos.checkpoint.sources import (
    checkpoints_folder,
    open_weights,
    read_model_config,
    released_config,
    run_of_file,
    weights_path,
)
from nemo_cosmos.checksums import Verify, verify
from nemo_cosmos.errors import InputError
from nemo_cosmos.models.dit import CosmosDiT, DiTConfig, build_dit, transformer_config
from nemo_cosmos.models.dit.state_dict import check
from nemo_cosmos.parallel.groups import ParallelGroups

logger = logging.getLogger(__name__)


def network_config(path: str | Path) -> DiTConfig:
    """The network in a run folder, its ``checkpoints`` folder, a file exported there, a diffusers folder, or a
    released folder that is called so."""
    path = weights_path(path)
    if path.is_file():
        known = run_of_file(path)
        released = released_config(path) if known is None else None
        return released or read_model_config(known or path.parent)
    if is_diffusers_folder(path):
        return config_from_diffusers(path)
    return read_model_config(checkpoints_folder(path))


def load_original_file(path: str | Path, weights: Weights = "ema") -> Mapping[str, Tensor]:
    """The tensors of a released or exported ``.pt`` file, memory mapped; see :func:`read_tensors`."""
    verify(path)
    return read_tensors(Path(path), weights)


def load_network(
    path: str | Path,
    *,
    weights: Weights = "ema",
    preset: str | None = None,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    context_group: Any = None,
    verify_files: Verify = "auto",
    adapter: Adapters = None,
    lora_alpha: float | None = None,
    **overrides: Any,
) -> CosmosDiT:
    """A network ready for inference; adapters of a run are merged into its weights.

    Args:
        path: a run folder, its ``checkpoints`` folder, a ``.pt`` file in the original layout or a diffusers folder.
        weights: which weights of a run, or of a file that holds both; others are taken as they are.
        preset: the network of a file that lies outside a run folder; ``overrides`` are fields of its configuration.
        context_group: process group over which one sample's tokens are split.
        verify_files: whether the files are compared with their checksums, where they have them.
        adapter: adapters to merge into the weights: a PEFT folder or a file of them, or several, each with how much
            of it is added.
        lora_alpha: of adapters whose files do not say it, those in the file of the weights included.

    Raises:
        InputError: nothing to load there, or the tensors do not fit the network.
    """
    source = open_weights(path, weights=weights, verify_files=verify_files, lora_alpha=lora_alpha)
    config = source.require_config(preset, **overrides)
    state = with_adapters(
        config, source.state, choices(adapter), lora_alpha=lora_alpha, weights=weights, verify_files=verify_files
    )
    try:
        check(config, state)  # Before memory is taken for what the configuration asks for.
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    groups = ParallelGroups(context=context_group)
    with torch.device("meta"):
        net = build_dit(config, transformer=transformer_config(config, dtype=dtype), groups=groups)
    net = net.to_empty(device=device)
    report = net.load_original(state)
    logger.info("weights of %s: %s", path, report)
    bad = [name for name, parameter in net.named_parameters() if not bool(torch.isfinite(parameter).all())]
    if bad:
        raise InputError(
            f"{path}: {len(bad)} tensors hold values that are not finite, {bad[0]} first; take another save"
        )
    return net.eval().requires_grad_(False)
