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

from nemo_cosmos.atomic import write_text
from nemo_cosmos.checkpoint.files import set_aside
from nemo_cosmos.checksums import Verify, beside, finished_archive, verify
from nemo_cosmos.errors import InputError
from nemo_cosmos.models.tokenizer import TokenizerModule
from nemo_cosmos.models.tokenizer.jit import export_jit
from nemo_cosmos.models.tokenizer.state_dict import compare
from nemo_cosmos.models.tokenizer.weights import read_weights
from nemo_cosmos.models.torch_files import load_restricted
from nemo_cosmos.training.resume import remove_temporaries

logger = logging.getLogger(__name__)

LATEST = "latest_checkpoint.txt"
JIT_SUFFIXES = {"encoder": "_enc.jit", "decoder": "_dec.jit", "autoencoder": "_ema.jit"}


def checkpoint_file(folder: Path, step: int) -> Path:
    return folder / f"iter_{step:09d}.pt"


def latest_checkpoint(folder: Path) -> Path | None:
    """The file named in latest_checkpoint.txt, None where there is no save.

    Raises:
        InputError: it names no save or one that is gone, or is missing beside several.
    """
    file = _named(folder)
    if file is not None and not file.is_file():
        raise InputError(
            f"{folder / LATEST} names {file.name}, which is missing: restore it, or write one of these there: "
            f"{', '.join(_saves(folder)) or 'none'}"
        )
    return file


def _saves(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.glob("iter_*.pt"))


def _named(folder: Path) -> Path | None:
    marker, saves = folder / LATEST, _saves(folder)
    if not marker.is_file():
        if len(saves) > 1:
            raise InputError(
                f"{marker} is missing beside {', '.join(saves)}: write {saves[-1]} into it to go on from there, or "
                "choose another output_dir"
            )
        if not saves:
            return None
        # A run that is killed within its first save may have put it in place and not named it yet.
        logger.warning("%s is missing: going on from the only save, %s", marker, saves[0])
        return folder / saves[0]
    name = marker.read_text(encoding="utf-8", errors="replace").strip()
    if name != Path(name).name or not name.isprintable() or not name.endswith(".pt"):
        raise InputError(f"{marker} names {name[:100]!r}: expected iter_N.pt; write the name of a save there")
    return folder / name


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
        write_text(folder / LATEST, file.name + "\n")
    except (OSError, RuntimeError) as error:
        # torch's zip writer reports a full disk as a RuntimeError.
        remove_unfinished(folder.parent)
        raise InputError(
            f"{file}: could not be written ({error}); the save before is whole: free space, then start the run again"
        ) from error
    delete_old(file, keep)
    return file


def delete_old(newest: Path, keep: int) -> None:
    """Delete all but the ``keep`` newest saves, with their TorchScript files and checksums."""
    # Later ones are of a run that was rolled back: they are written anew in time, and do not count.
    kept = [other for other in sorted(newest.parent.glob("iter_*.pt")) if other.name <= newest.name]
    for old in kept[:-keep]:
        for suffix in (".pt", "_reg.jit", *JIT_SUFFIXES.values()):
            doomed = old.with_name(old.stem + suffix)
            beside(doomed).unlink(missing_ok=True)
            doomed.unlink(missing_ok=True)


def save_to_resume(folder: Path, mode: Verify, *, previous: bool) -> tuple[Path | None, list[Path]]:
    """The save to go on from, and the newer ones that were passed over because they are damaged.

    Args:
        previous: take the newest earlier one where the newest is damaged.

    Raises:
        InputError: it is damaged, and so is every other that may be taken.
    """
    newest = _named(folder) if previous else latest_checkpoint(folder)
    if newest is None:
        return None, []
    earlier = [file for file in sorted(folder.glob("iter_*.pt"), reverse=True) if file.name < newest.name]
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
    if damaged or not (now.parent / LATEST).is_file():
        write_text(now.parent / LATEST, now.name + "\n")
    if damaged:
        logger.warning("resume=previous: the run goes on from %s", now.name)


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
