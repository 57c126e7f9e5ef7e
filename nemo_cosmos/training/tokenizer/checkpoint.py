"""Tokenizer checkpoints: ``iter_{step:09d}.pt`` with its TorchScript companions, and the newest one's name.

The file is a dictionary of model, optimizer, scheduler, grad_scaler and iteration. ``model`` holds ``network.<key>``
and, with EMA, ``ema.network-<key with . as ->``: parameters only, as released training checkpoints do. It is read
without unpickling anything but tensors and plain containers.
"""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nemo_cosmos.checkpoint.files import set_aside
from nemo_cosmos.checksums import Verify, beside, finished_archive, verify
from nemo_cosmos.errors import InputError
from nemo_cosmos.models.tokenizer import TokenizerModule
from nemo_cosmos.models.tokenizer.jit import export_jit
from nemo_cosmos.models.tokenizer.state_dict import compare
from nemo_cosmos.models.tokenizer.weights import read_weights
from nemo_cosmos.models.torch_files import load_restricted
from nemo_cosmos.run_folder import (
    LATEST,
    iteration_name,
    name_newest,
    newest_save,
    old_saves,
    remove_temporaries,
    step_of,
    write_latest,
)

logger = logging.getLogger(__name__)

JIT_SUFFIXES = {"encoder": "_enc.jit", "decoder": "_dec.jit", "autoencoder": "_ema.jit"}


def checkpoint_file(folder: Path, step: int) -> Path:
    return folder / f"{iteration_name(step)}.pt"


def saved_steps(folder: Path) -> list[int]:
    """Steps of the saves, in order."""
    found = (step_of(file.stem) for file in folder.glob("iter_*.pt"))
    return sorted(step for step in found if step is not None)


def latest_checkpoint(folder: Path) -> Path | None:
    """The file named in latest_checkpoint.txt, None where there is no save.

    Raises:
        InputError: it names no save or one that is gone, or is missing beside several.
    """
    saves = saved_steps(folder)
    step = newest_save(folder, saves)
    if step is None:
        return None
    if step not in saves:
        raise InputError(
            f"{folder / LATEST} names {checkpoint_file(folder, step).name}, which is missing: restore it, or write "
            f"one of these there: {', '.join(checkpoint_file(folder, one).name for one in saves) or 'none'}"
        )
    return checkpoint_file(folder, step)


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

    Raises:
        InputError: it cannot be written; what was begun is deleted.
    """
    folder.mkdir(parents=True, exist_ok=True)
    file = checkpoint_file(folder, step)
    try:
        with finished_archive(file) as temporary:
            # Into a file's name torch would write that name, of which a part is drawn at random.
            with temporary.open("wb") as stream:
                torch.save(content, stream)
            if exported is not None:
                export_parts(exported, folder, step)
        write_latest(folder, step)
    except (OSError, RuntimeError) as error:
        # torch's zip writer reports a full disk as a RuntimeError.
        remove_unfinished(folder.parent)
        raise InputError(
            f"{file}: could not be written ({error}); the save before is whole: free space, then start the run again"
        ) from error
    delete_old(folder, step, keep)
    return file


def delete_old(folder: Path, newest: int, keep: int) -> None:
    """Delete all but the ``keep`` newest saves up to step ``newest``, with their TorchScript files and checksums."""
    for old in old_saves(saved_steps(folder), newest, keep):
        for suffix in (".pt", "_reg.jit", *JIT_SUFFIXES.values()):
            doomed = folder / f"{iteration_name(old)}{suffix}"
            beside(doomed).unlink(missing_ok=True)
            doomed.unlink(missing_ok=True)


def save_to_resume(folder: Path, mode: Verify, *, previous: bool) -> tuple[Path | None, list[Path]]:
    """The save to go on from, and the newer ones that were passed over because they are damaged.

    Args:
        previous: take the newest earlier one where the newest is damaged.

    Raises:
        InputError: it is damaged, and so is every other that may be taken.
    """
    saves = saved_steps(folder)
    if previous:
        step = newest_save(folder, saves)
        newest = None if step is None else checkpoint_file(folder, step)
    else:
        newest = latest_checkpoint(folder)
    if newest is None:
        return None, []
    earlier = [file for one in reversed(saves) if (file := checkpoint_file(folder, one)).name < newest.name]
    advice = f"start again with resume=previous to go on from {earlier[0].name}" if earlier else "it is the only save"
    passed: list[Path] = []
    for file in [newest, *earlier] if previous else [newest]:
        try:
            verify(file, mode, remedy=f"{advice}, or take it from a copy")
            if previous:
                read_checkpoint(file)
            return file, passed
        except InputError as error:
            problem = error
            passed.append(file)
            if previous:
                logger.warning("%s", error)
    raise problem


def go_on_from(now: Path | None, damaged: Sequence[Path]) -> None:
    """Name the save that a kill left nameless; keep damaged ones under names that nothing takes for a save."""
    if now is None:
        return
    for file in damaged:
        for part in sorted(file.parent.glob(f"{file.stem}*")):
            kept = set_aside(part)
            logger.warning("resume=previous: %s is kept as %s", part.name, kept)
    step = step_of(now.stem)
    if damaged and step is not None:
        write_latest(now.parent, step)
        logger.warning("resume=previous: the run goes on from %s", now.name)
    else:
        name_newest(now)


def remove_unfinished(output_dir: Path) -> None:
    """Delete what a killed run left half-written. No other run may be at work in the folder."""
    remove_temporaries(output_dir)
    for pattern in ("checkpoints/.iter_*.tmp*", f"checkpoints/.{LATEST}*.tmp", "metrics.tmp"):
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
    files = {part: folder / f"{iteration_name(step)}{suffix}" for part, suffix in JIT_SUFFIXES.items()}
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
    regular, averaged = read_weights(path, regular=True), read_weights(path, verify_files=None)
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
