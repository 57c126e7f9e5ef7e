"""Tokenizer folders on disk.

A folder holds ``config.json``, the weights (in which files says :mod:`nemo_cosmos.models.tokenizer.weights`), and the
latent statistics as ``latent_stats.json`` or ``mean_std.pt``. Released folders and those written by
:func:`save_tokenizer` are read alike.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nemo_cosmos.atomic import finished_folder, write_json
from nemo_cosmos.checksums import Verify, seal_again, seal_folder, verify
from nemo_cosmos.errors import InputError
from nemo_cosmos.models.tokenizer.autoencoder import TokenizerModule
from nemo_cosmos.models.tokenizer.config import PRESETS, TokenizerConfig
from nemo_cosmos.models.tokenizer.cosmos import CosmosTokenizer
from nemo_cosmos.models.tokenizer.latent_stats import cv8x8x8_statistics
from nemo_cosmos.models.tokenizer.state_dict import (
    infer_config,
    load_original,
    normalise_keys,
    require_fit,
    to_original,
    weights_sha256,
)
from nemo_cosmos.models.tokenizer.weights import read_weights
from nemo_cosmos.models.torch_files import load_restricted
from nemo_cosmos.tiny import located
from nemo_cosmos.typed import read_object

logger = logging.getLogger(__name__)

_FORMAT = "nemo_cosmos.tokenizer"


def load_tokenizer(
    path: str | Path,
    *,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
    chunk_frames: int | None = None,
    regular: bool = False,
    verify_files: Verify = "auto",
) -> CosmosTokenizer:
    """Load a tokenizer folder: the weights that the released world models were trained with, the averaged ones.

    Args:
        path: folder as described at the top of this module, or the name of a packaged tokenizer.
        device: where it shall run.
        dtype: compute and weight dtype; latents and statistics stay fp32.
        chunk_frames: frames per chunk instead of the configuration's, e.g. 57 for the multiview models.
        regular: the regular weights of ``model.pt`` where the folder has both.
        verify_files: whether the files are compared with their checksums, where they have them.

    Raises:
        InputError: the folder, its config.json or its weights are missing, or the weights are another tokenizer's.
    """
    folder = located(path, "tokenizer")
    if not folder.is_dir():
        raise InputError(
            f"{folder}: no such tokenizer folder; tools/download_tokenizer_checkpoints.py fetches the released ones"
        )
    verify(folder, verify_files)
    values = _read_config(folder / "config.json")
    weights = read_weights(folder, regular=regular, verify_files=None)
    if regular and weights.averaged:
        raise InputError(f"{folder}: no regular weights, only {weights.origin}; leave out the regular ones' option")
    state_dict = weights.state
    config = _resolve_config(values, state_dict, folder)
    mean, std = _read_statistics(folder, config)
    if mean is None and not config.discrete:
        warnings.warn(
            f"{folder} has no latent statistics: latents stay unnormalised. Compute them with "
            f"`nemo-cosmos tokenizer stats --tokenizer {folder} --videos 'DIR/*.mp4'`",
            stacklevel=2,
        )
    module = module_with_weights(config, state_dict)
    digest = weights_sha256(state_dict, mean, std)
    logger.info("tokenizer %s (%s): %s", config.name, digest[:12], weights)
    module.to(device=device, dtype=dtype)
    return CosmosTokenizer(module, mean=mean, std=std, chunk_frames=chunk_frames, sha256=digest, origin=str(weights))


def module_with_weights(config: TokenizerConfig, state_dict: Mapping[str, Tensor]) -> TokenizerModule:
    """A network on the CPU with released weights; no memory is taken for one that they do not fit.

    Raises:
        InputError: missing, unknown or misshapen tensors (the constant buffers may be missing).
    """
    given = normalise_keys(state_dict)
    blocks = len(config.channels_mult) * config.num_res_blocks
    if blocks > len(given):  # The modules of such a network alone would take long to make.
        raise InputError(f"weights do not fit tokenizer {config.name}: {len(given)} tensors for {blocks} blocks")
    with torch.device("meta"):
        module = TokenizerModule(config)
    require_fit(module, given)
    # Constants of the released layout may be absent from the file, and `meta` holds no values: take fresh ones.
    module = module.to_empty(device="cpu")
    _restore_constants(module)
    load_original(module, given, strict=True)
    return module


def save_tokenizer(
    path: str | Path,
    module: TokenizerModule,
    *,
    name: str,
    mean: Tensor | None = None,
    std: Tensor | None = None,
    metadata: Mapping[str, Any] | None = None,
) -> Path:
    """Write a folder that :func:`load_tokenizer` reads; an existing one is replaced at the end in one rename.

    Args:
        module: weights are stored as they are (dtype included).
        name: recorded in config.json and in every latent made with this tokenizer.
        mean: (C, P) raw-latent mean per channel and latent-frame position, with ``std``; both or none.
        metadata: json-able facts about the training, stored under "metadata".
    """
    from safetensors.torch import save_file

    if (mean is None) != (std is None):
        raise ValueError("give mean and std together")
    target = Path(path)
    with finished_folder(target) as temporary:
        state = {key: value.cpu().contiguous() for key, value in to_original(module).items()}
        save_file(state, temporary / "model.safetensors")
        values = {
            "format": _FORMAT,
            "config": {**module.config.as_dict(), "name": name},
            "sha256": weights_sha256(state, mean, std),
            "metadata": dict(metadata or {}),
        }
        write_json(temporary / "config.json", values, indent=2)
        if mean is not None and std is not None:
            write_statistics(temporary, mean, std)
        seal_folder(temporary)
    return target


def write_statistics(folder: str | Path, mean: Tensor, std: Tensor) -> Path:
    """Store latent statistics (C, P) beside the weights as latent_stats.json, atomically."""
    target = Path(folder) / "latent_stats.json"
    write_json(target, {"mean": mean.float().tolist(), "std": std.float().tolist()}, indent=None)
    seal_again(target.parent, target.name)
    return target


def _read_config(file: Path) -> dict[str, Any]:
    if not file.exists():
        raise InputError(f"{file}: missing; a tokenizer folder needs its config.json")
    return read_object(file)


def _resolve_config(values: dict[str, Any], state_dict: Mapping[str, Tensor], folder: Path) -> TokenizerConfig:
    if values.get("format") == _FORMAT:
        return TokenizerConfig.from_dict(values.get("config", {}), origin=str(folder / "config.json"))
    # A released folder: its config.json is informative only, the weights say what they are.
    preset = next((name for name in PRESETS if name in folder.name), None)
    config = infer_config(state_dict, name=preset or str(values.get("name", folder.name)))
    if preset is not None:
        expected = TokenizerConfig.preset(preset)
        for key in ("patch_size", "temporal_compression", "spatial_compression", "latent_channels"):
            if getattr(config, key) != getattr(expected, key):
                raise InputError(
                    f"{folder}: named {preset} but its weights are of another tokenizer "
                    f"({key} {getattr(config, key)} instead of {getattr(expected, key)})"
                )
    return config


def _read_statistics(folder: Path, config: TokenizerConfig) -> tuple[Tensor | None, Tensor | None]:
    json_file, pt_file = folder / "latent_stats.json", folder / "mean_std.pt"
    if json_file.is_file():
        try:
            values = read_object(json_file)
            mean, std = (torch.tensor(values[name], dtype=torch.float32) for name in ("mean", "std"))
        except (ValueError, LookupError, TypeError, RuntimeError, RecursionError, MemoryError, OverflowError) as error:
            raise InputError(f"{json_file}: expected the lists mean and std ({error})") from error
    elif pt_file.is_file():
        mean, std = _read_pair_of_statistics(pt_file, config.latent_channels)
    elif config.name == "CV8x8x8-720p":
        mean, std = cv8x8x8_statistics()
    else:
        return None, None
    if mean.shape != std.shape or mean.ndim != 2 or mean.shape[0] != config.latent_channels:
        raise InputError(
            f"{folder}: latent statistics of shapes {tuple(mean.shape)} and {tuple(std.shape)}; expected "
            f"({config.latent_channels}, latent frames) both"
        )
    if not (mean.isfinite().all() and std.isfinite().all() and (std > 0).all()):
        raise InputError(f"{folder}: latent statistics that are not finite, or deviations of 0 or less")
    return mean, std


def _read_pair_of_statistics(file: Path, channels: int) -> tuple[Tensor, Tensor]:
    """Mean and std, each (C, P), which released files store flat."""
    content = load_restricted(file)
    parts = list(content) if isinstance(content, list | tuple | Tensor) else []
    if len(parts) != 2 or not all(isinstance(part, Tensor) and part.numel() % channels == 0 for part in parts):
        raise InputError(f"{file}: expected the pair (mean, std) of tensors for {channels} channels")
    return parts[0].float().reshape(channels, -1), parts[1].float().reshape(channels, -1)


def _restore_constants(module: TokenizerModule) -> None:
    config = module.config
    tiny = TokenizerModule(
        TokenizerConfig.from_dict({**config.as_dict(), "channels": 1, "num_res_blocks": 1, "z_channels": 1})
    )
    constants = dict(tiny.named_buffers())
    for name, buffer in module.named_buffers():
        buffer.copy_(constants[name])
