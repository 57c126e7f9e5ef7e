"""Tokenizer checkpoints: ``iter_{step:09d}.pt`` with its TorchScript companions, and the newest one's name.

The file is a dictionary of model, optimizer, scheduler, grad_scaler and iteration. ``model`` holds ``network.<key>``
and, with EMA, ``ema.network-<key with . as ->``: parameters only, as released training checkpoints do. It is read
without unpickling anything but tensors and plain containers.
"""

from __future__ import annotations

import os
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nemo_cosmos.errors import InputError
from nemo_cosmos.models.tokenizer import TokenizerModule
from nemo_cosmos.models.tokenizer.jit import export_jit
from nemo_cosmos.models.tokenizer.pretrained import read_weights_folder_or_file
from nemo_cosmos.models.tokenizer.state_dict import normalise_keys

LATEST = "latest_checkpoint.txt"
JIT_SUFFIXES = {"encoder": "_enc.jit", "decoder": "_dec.jit", "autoencoder": "_ema.jit"}


def checkpoint_file(folder: Path, step: int) -> Path:
    return folder / f"iter_{step:09d}.pt"


def latest_checkpoint(folder: Path) -> Path | None:
    """The file named in latest_checkpoint.txt; InputError when it names one that is gone."""
    marker = folder / LATEST
    if not marker.is_file():
        return None
    file = folder / marker.read_text().strip()
    if not file.is_file():
        raise InputError(f"{marker} names {file.name}, which is missing: restore it or delete {marker}")
    return file


def pack_model(module: TokenizerModule, ema: Mapping[str, Tensor] | None) -> dict[str, Tensor]:
    """Checkpoint keys of the regular and the averaged parameters."""
    packed = {f"network.{name}": value.detach() for name, value in module.named_parameters()}
    if ema is not None:
        packed |= {f"ema.network-{name.replace('.', '-')}": value for name, value in ema.items()}
    return packed


def save_checkpoint(folder: Path, step: int, content: dict[str, Any], keep: int) -> Path:
    """Write one checkpoint, make it the latest, delete all but the ``keep`` newest (and their TorchScript files)."""
    folder.mkdir(parents=True, exist_ok=True)
    file = checkpoint_file(folder, step)
    temporary = file.with_name(f".{file.name}.tmp")
    torch.save(content, temporary)
    os.replace(temporary, file)
    marker = folder / f".{LATEST}.tmp"
    marker.write_text(file.name + "\n")
    os.replace(marker, folder / LATEST)
    for old in sorted(folder.glob("iter_*.pt"))[:-keep]:
        for suffix in (".pt", "_reg.jit", *JIT_SUFFIXES.values()):
            old.with_name(old.stem + suffix).unlink(missing_ok=True)
    return file


def export_parts(module: TokenizerModule, folder: Path, step: int) -> list[Path]:
    """Write iter_N_enc.jit, _dec.jit and _ema.jit of ``module`` (which holds the averaged weights)."""
    files = {part: folder / f"iter_{step:09d}{suffix}" for part, suffix in JIT_SUFFIXES.items()}
    export_jit(module, files)
    return list(files.values())


def read_checkpoint(path: Path) -> dict[str, Any]:
    """A checkpoint of this trainer; InputError when it is something else."""
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError) as error:
        raise InputError(f"{path}: not a readable checkpoint ({str(error).splitlines()[0]})") from error
    wanted = {"model", "optimizer", "scheduler", "iteration"}
    if not isinstance(content, dict) or not wanted <= set(content):
        raise InputError(f"{path}: not a training checkpoint; expected the keys {', '.join(sorted(wanted))}")
    return content


def load_weights(module: TokenizerModule, path: str | Path, *, ema: bool = False) -> dict[str, Tensor]:
    """Load any form of tokenizer weights strictly into ``module``; returns the released-layout tensors.

    Args:
        path: tokenizer folder, .pt, .safetensors or .jit file.
        ema: the averaged weights of a training checkpoint.
    """
    state = read_weights_folder_or_file(Path(path))
    state = normalise_keys(state, ema=ema)
    module.load_original(state, strict=True)
    return state
