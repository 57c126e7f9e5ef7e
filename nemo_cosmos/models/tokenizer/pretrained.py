"""Tokenizer folders on disk.

A folder holds ``config.json``, the weights as ``model.safetensors``, ``model.pt`` or the pair ``encoder.jit`` and
``decoder.jit``, and the latent statistics as ``latent_stats.json`` or ``mean_std.pt``. Released folders and those
written by :func:`save_tokenizer` are read alike.
"""

from __future__ import annotations

import json
import os
import pickle
import shutil
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nemo_cosmos.errors import InputError
from nemo_cosmos.models.tokenizer.autoencoder import TokenizerModule
from nemo_cosmos.models.tokenizer.config import PRESETS, TokenizerConfig
from nemo_cosmos.models.tokenizer.latent_stats import cv8x8x8_statistics
from nemo_cosmos.models.tokenizer.state_dict import (
    infer_config,
    load_original,
    normalise_keys,
    to_original,
    weights_sha256,
)
from nemo_cosmos.models.tokenizer.video_tokenizer import VideoTokenizer

_FORMAT = "nemo_cosmos.tokenizer"


def load_tokenizer(
    path: str | Path,
    *,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
    chunk_frames: int | None = None,
) -> VideoTokenizer:
    """Load a tokenizer folder.

    Args:
        path: folder as described at the top of this module.
        device: where it shall run.
        dtype: compute and weight dtype; latents and statistics stay fp32.
        chunk_frames: frames per chunk instead of the configuration's, e.g. 57 for the multiview models.

    Raises:
        InputError: the folder, its config.json or its weights are missing, or the weights are another tokenizer's.
    """
    folder = Path(path)
    if not folder.is_dir():
        raise InputError(
            f"{folder}: no such tokenizer folder; tools/download_tokenizer_checkpoints.py fetches the released ones"
        )
    values = _read_config(folder / "config.json")
    state_dict = normalise_keys(_read_weights(folder))
    config = _resolve_config(values, state_dict, folder)
    mean, std = _read_statistics(folder, config)
    if mean is None and not config.discrete:
        warnings.warn(
            f"{folder} has no latent statistics: latents stay unnormalised. Compute them with "
            f"`nemo-cosmos tokenizer stats --tokenizer {folder} --videos 'DIR/*.mp4'`",
            stacklevel=2,
        )
    with torch.device("meta"):
        module = TokenizerModule(config)
    # Constants of the released layout may be absent from the file, and `meta` holds no values: take fresh ones.
    module = module.to_empty(device="cpu")
    _restore_constants(module)
    load_original(module, state_dict, strict=True)
    digest = weights_sha256(state_dict, mean, std)
    module.to(device=device, dtype=dtype)
    return VideoTokenizer(module, mean=mean, std=std, chunk_frames=chunk_frames, sha256=digest)


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
    temporary = target.with_name(f".{target.name}.tmp{os.getpid()}")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        state = {key: value.cpu().contiguous() for key, value in to_original(module).items()}
        save_file(state, temporary / "model.safetensors")
        values = {
            "format": _FORMAT,
            "config": {**module.config.as_dict(), "name": name},
            "sha256": weights_sha256(state, mean, std),
            "metadata": dict(metadata or {}),
        }
        (temporary / "config.json").write_text(json.dumps(values, indent=2) + "\n")
        if mean is not None and std is not None:
            write_statistics(temporary, mean, std)
        replace_folder(temporary, target)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    return target


def write_statistics(folder: str | Path, mean: Tensor, std: Tensor) -> Path:
    """Store latent statistics (C, P) beside the weights as latent_stats.json, atomically."""
    target = Path(folder) / "latent_stats.json"
    temporary = target.with_suffix(".json.tmp")
    temporary.write_text(json.dumps({"mean": mean.float().tolist(), "std": std.float().tolist()}) + "\n")
    os.replace(temporary, target)
    return target


def replace_folder(temporary: Path, target: Path) -> None:
    """Rename ``temporary`` to ``target``; a former ``target`` is moved aside first and deleted last."""
    old = target.with_name(f".{target.name}.old{os.getpid()}")
    if target.exists():
        os.replace(target, old)
    os.replace(temporary, target)
    shutil.rmtree(old, ignore_errors=True)


def read_weights_file(path: str | Path) -> dict[str, Tensor]:
    """State dict of a .safetensors, .pt or .jit file; a training checkpoint gives its ``model`` part."""
    file = Path(path)
    if not file.is_file():
        raise InputError(f"{file}: no such file")
    if file.suffix == ".safetensors":
        from safetensors.torch import load_file

        return dict(load_file(file))
    if file.suffix == ".jit":
        return dict(load_jit(file).state_dict())
    try:
        content = torch.load(file, map_location="cpu", weights_only=True, mmap=True)
    except (RuntimeError, ValueError, EOFError, OSError) as error:
        raise InputError(f"{file}: not a readable PyTorch file ({error})") from error
    except pickle.UnpicklingError as error:
        raise InputError(
            f"{file}: holds more than tensors, so it is not loaded ({str(error).splitlines()[0]})"
        ) from error
    if isinstance(content, dict) and isinstance(content.get("model"), dict):
        content = content["model"]
    if not isinstance(content, dict) or not all(isinstance(v, Tensor) for v in content.values()):
        raise InputError(f"{file}: expected a state dict of tensors or a checkpoint with the key 'model'")
    return content


def load_jit(path: str | Path, device: str | torch.device = "cpu") -> torch.jit.ScriptModule:
    """A TorchScript file; InputError when it is not one."""
    try:
        return torch.jit.load(str(path), map_location=device).eval()
    except (RuntimeError, ValueError) as error:
        raise InputError(f"{path}: not a TorchScript file ({str(error).splitlines()[0]})") from error


def _read_config(file: Path) -> dict[str, Any]:
    if not file.is_file():
        raise InputError(f"{file}: missing; a tokenizer folder needs its config.json")
    try:
        values = json.loads(file.read_text())
    except json.JSONDecodeError as error:
        raise InputError(f"{file}: not valid JSON ({error})") from error
    if not isinstance(values, dict):
        raise InputError(f"{file}: expected a JSON object")
    return values


def read_weights_folder_or_file(path: Path) -> dict[str, Tensor]:
    """State dict of a tokenizer folder or of one weights file; InputError when there is neither."""
    if path.is_dir():
        return _read_weights(path)
    if path.is_file():
        return read_weights_file(path)
    raise InputError(f"{path}: no such tokenizer folder or weights file")


def _read_weights(folder: Path) -> dict[str, Tensor]:
    for name in ("model.safetensors", "model.pt"):
        if (folder / name).is_file():
            return read_weights_file(folder / name)
    pair = [folder / "encoder.jit", folder / "decoder.jit"]
    if all(file.is_file() for file in pair):
        return {**normalise_keys(read_weights_file(pair[0])), **normalise_keys(read_weights_file(pair[1]))}
    if (folder / "autoencoder.jit").is_file():
        return read_weights_file(folder / "autoencoder.jit")
    raise InputError(
        f"{folder}: no weights; expected model.safetensors, model.pt, encoder.jit and decoder.jit, or autoencoder.jit"
    )


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
        values = json.loads(json_file.read_text())
        mean, std = torch.tensor(values["mean"]), torch.tensor(values["std"])
    elif pt_file.is_file():
        content = torch.load(pt_file, map_location="cpu", weights_only=True)
        if not isinstance(content, list | tuple) or len(content) != 2:
            raise InputError(f"{pt_file}: expected the pair (mean, std)")
        mean, std = (part.float().reshape(config.latent_channels, -1) for part in content)
    elif config.name == "CV8x8x8-720p":
        mean, std = cv8x8x8_statistics()
    else:
        return None, None
    if mean.shape != std.shape or mean.ndim != 2 or mean.shape[0] != config.latent_channels:
        raise InputError(
            f"{folder}: latent statistics of shapes {tuple(mean.shape)} and {tuple(std.shape)}; expected "
            f"({config.latent_channels}, latent frames) both"
        )
    return mean, std


def _restore_constants(module: TokenizerModule) -> None:
    config = module.config
    tiny = TokenizerModule(
        TokenizerConfig.from_dict({**config.as_dict(), "channels": 1, "num_res_blocks": 1, "z_channels": 1})
    )
    constants = dict(tiny.named_buffers())
    for name, buffer in module.named_buffers():
        buffer.copy_(constants[name])
