"""Tokenizer checkpoints: ``iter_{step:09d}.pt`` with its TorchScript companions, and the newest one's name.

The file is a dictionary of model, optimizer, scheduler, grad_scaler and iteration. ``model`` holds ``network.<key>``
and, with EMA, ``ema.network-<key with . as ->``: parameters only, as released training checkpoints do. It is read
without unpickling anything but tensors and plain containers.
"""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nemo_cosmos.errors import InputError
from nemo_cosmos.models.tokenizer import TokenizerModule
from nemo_cosmos.models.tokenizer.jit import export_jit
from nemo_cosmos.models.tokenizer.state_dict import compare
from nemo_cosmos.models.tokenizer.weights import read_weights
from nemo_cosmos.models.torch_files import load_restricted

logger = logging.getLogger(__name__)

LATEST = "latest_checkpoint.txt"
JIT_SUFFIXES = {"encoder": "_enc.jit", "decoder": "_dec.jit", "autoencoder": "_ema.jit"}


def checkpoint_file(folder: Path, step: int) -> Path:
    return folder / f"iter_{step:09d}.pt"


def latest_checkpoint(folder: Path) -> Path | None:
    """The file named in latest_checkpoint.txt, None where there is no save; InputError when it names none or one that
    is gone, or is missing beside saves."""
    marker = folder / LATEST
    saves = sorted(file.name for file in folder.glob("iter_*.pt"))
    if not marker.is_file():
        if saves:
            raise InputError(
                f"{marker} is missing beside {', '.join(saves)}: write {saves[-1]} into it to go on from there, or "
                "choose another output_dir"
            )
        return None
    name = marker.read_text(encoding="utf-8", errors="replace").strip()
    if name != Path(name).name or not name.isprintable() or not name.endswith(".pt"):
        raise InputError(f"{marker} names {name[:100]!r}: expected iter_N.pt; write the name of a save there")
    file = folder / name
    if not file.is_file():
        raise InputError(
            f"{marker} names {file.name}, which is missing: write one of {', '.join(saves) or 'the saves'} there"
        )
    return file


def pack_model(module: TokenizerModule, ema: Mapping[str, Tensor] | None) -> dict[str, Tensor]:
    """Checkpoint keys of the regular and the averaged parameters."""
    packed = {f"network.{name}": value.detach() for name, value in module.named_parameters()}
    if ema is not None:
        packed |= {f"ema.network-{name.replace('.', '-')}": value for name, value in ema.items()}
    return packed


def save_checkpoint(
    folder: Path, step: int, content: dict[str, Any], keep: int, exported: TokenizerModule | None = None
) -> Path:
    """Write one checkpoint, make it the latest, delete all but the ``keep`` newest (and their TorchScript files).

    Args:
        exported: written as TorchScript beside it; complete before the checkpoint counts as the latest.
    """
    folder.mkdir(parents=True, exist_ok=True)
    file = checkpoint_file(folder, step)
    temporary = file.with_name(f".{file.name}.tmp")
    torch.save(content, temporary)
    if exported is not None:
        export_parts(exported, folder, step)
    os.replace(temporary, file)
    marker = folder / f".{LATEST}.tmp"
    marker.write_text(file.name + "\n")
    os.replace(marker, folder / LATEST)
    # Later ones are of a run that was rolled back: they are written anew in time, and do not count.
    kept = [other for other in sorted(folder.glob("iter_*.pt")) if other.name <= file.name]
    for old in kept[:-keep]:
        for suffix in (".pt", "_reg.jit", *JIT_SUFFIXES.values()):
            old.with_name(old.stem + suffix).unlink(missing_ok=True)
    return file


def remove_unfinished(output_dir: Path) -> None:
    """Delete what a killed run left half-written. No other run may be at work in the folder."""
    for pattern in ("checkpoints/.iter_*.tmp*", f"checkpoints/.{LATEST}.tmp", "metrics.tmp"):
        for file in output_dir.glob(pattern):
            file.unlink(missing_ok=True)
    for pattern in (".tokenizer.tmp*", ".tokenizer.old*"):
        for folder in output_dir.glob(pattern):
            # What was moved aside is the only one if the kill came before the new one was in its place.
            if pattern == ".tokenizer.old*" and not (output_dir / "tokenizer").exists():
                os.replace(folder, output_dir / "tokenizer")
            else:
                shutil.rmtree(folder, ignore_errors=True)


def export_parts(module: TokenizerModule, folder: Path, step: int) -> list[Path]:
    """Write iter_N_enc.jit, _dec.jit and _ema.jit of ``module`` (which holds the averaged weights)."""
    files = {part: folder / f"iter_{step:09d}{suffix}" for part, suffix in JIT_SUFFIXES.items()}
    export_jit(module, files)
    return list(files.values())


def read_checkpoint(path: Path) -> dict[str, Any]:
    """A checkpoint of this trainer; InputError when it is something else."""
    content = load_restricted(path, mmap=False)
    wanted = {"model", "optimizer", "scheduler", "iteration"}
    if not isinstance(content, dict) or not wanted <= set(content):
        raise InputError(f"{path}: not a training checkpoint; expected the keys {', '.join(sorted(wanted))}")
    return content


def load_weights(module: TokenizerModule, path: str | Path, *, ema: bool = False) -> dict[str, Tensor]:
    """Load any form of tokenizer weights strictly into ``module``; returns the released-layout tensors.

    Args:
        path: tokenizer folder, .pt, .safetensors or .jit file.
        ema: the averaged instead of the regular weights, where there are both.
    """
    state = read_weights(path, regular=not ema).state
    module.load_original(state, strict=True)
    return state


def load_start(module: TokenizerModule, path: str | Path) -> dict[str, Tensor] | None:
    """Load what training starts from strictly into ``module``, the regular weights where there are two kinds.

    Args:
        path: tokenizer folder, .pt, .safetensors or .jit file.

    Returns:
        What the moving average starts from, by parameter: the averaged weights, None where ``path`` has one kind.

    Raises:
        InputError: either kind does not fit ``module``.
    """
    regular, averaged = read_weights(path, regular=True), read_weights(path)
    module.load_original(regular.state, strict=True)
    logger.info("training starts from the %s", regular)
    if averaged.origin == regular.origin:
        logger.info("the moving average starts from the same weights")
        return None
    report = compare(module.state_dict(), averaged.state)
    if not report.complete:
        raise InputError(f"the {averaged} do not fit tokenizer {module.config.name}: {report}")
    logger.info("the moving average starts from the %s", averaged)
    return {name: averaged.state[name] for name, _ in module.named_parameters()}
