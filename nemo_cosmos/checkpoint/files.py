"""Names of the files in a run folder, and writing that never leaves half a file."""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

from safetensors import SafetensorError
from torch import Tensor

from nemo_cosmos.atomic import finished_folder, flush
from nemo_cosmos.checkpoint.merging import NamedTensors, SummedWeights, merge_inside
from nemo_cosmos.checkpoint.stream import write_archive
from nemo_cosmos.checksums import beside, put_archive
from nemo_cosmos.choices import Weights
from nemo_cosmos.errors import InputError, require_replaceable
from nemo_cosmos.models.torch_files import read_parts
from nemo_cosmos.run_folder import LATEST as LATEST
from nemo_cosmos.run_folder import iteration_name, old_saves, step_of
from nemo_cosmos.run_folder import latest_step as latest_step
from nemo_cosmos.run_folder import write_latest as write_latest

JOINT = "model"
"""Folder of the exported files that hold regular and averaged weights."""
MODEL_CONFIG = "model_config.json"
_HEAD = "logvar."


def weights_file(folder: Path, step: int, weights: Weights) -> Path:
    """The exported file of one save, in the original key layout."""
    return folder / f"{iteration_name(step)}_{weights}_model.pt"


def joint_file(folder: Path, step: int) -> Path:
    """The exported file of one save that holds regular and averaged weights, where the commands of Predict2 put it."""
    return folder / JOINT / f"{iteration_name(step)}.pt"


def saved_steps(folder: Path) -> list[int]:
    """Steps whose distributed checkpoint is complete, in order."""
    if not folder.is_dir():
        return []
    found = (step_of(entry.name) for entry in folder.iterdir() if entry.is_dir())
    return sorted(step for step in found if step is not None)


def set_aside(path: Path) -> Path:
    """Rename a damaged save to ``damaged_…``, which nothing takes for a save; gives the new name."""
    names = (path.with_name(f"damaged{number or ''}_{path.name}") for number in itertools.count())
    free = next(name for name in names if not os.path.lexists(name))
    os.replace(path, free)
    flush(path.parent)
    return free


def save_tensors(path: Path, tensors: Mapping[str, Tensor], *, description: str | None = None) -> None:
    """Write a flat state dict as ``torch.save`` does, under a temporary name, then rename; a manifest beside it.

    Args:
        tensors: asked for one after another, so they may be made on demand.
        description: shown beside a progress bar; None shows nothing.

    Raises:
        InputError: the disk is full or the folder not writable; nothing is left behind.
    """
    require_replaceable(path)
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        write_archive(temporary, tensors, description=description)
        put_archive(temporary, path)
    except (OSError, RuntimeError) as error:
        # torch's zip writer reports a full disk as a RuntimeError.
        temporary.unlink(missing_ok=True)
        raise InputError(f"{path}: could not be written ({error}); free space or choose another output_dir") from error


@contextlib.contextmanager
def replacing_folder(folder: Path) -> Iterator[Path]:
    """A folder to write into that takes the name ``folder`` at the end, in place of one that has it.

    Raises:
        InputError: the disk is full or the folder not writable; what stood there before stays.
    """
    require_replaceable(folder, folder=True)
    try:
        with finished_folder(folder) as temporary:
            yield temporary
    except (OSError, SafetensorError) as error:
        raise InputError(f"{folder}: could not be written ({error}); free space or choose another folder") from error


def read_tensors(
    path: Path, weights: Weights = "ema", *, lora_alpha: float | None = None
) -> NamedTensors | SummedWeights:
    """Weights of a ``.pt`` or ``.safetensors`` file, memory mapped; only tensors and plain containers are unpickled.

    Adapters that a file has beside the layers they wrap are merged, each tensor when it is asked for.

    Args:
        weights: which of a file that holds averaged weights (``net_ema.*``) beside the regular ones; a file with one
            kind gives that.
        lora_alpha: of such adapters, which count as alpha / rank; None: alpha = rank.

    Raises:
        InputError: missing, not a file of tensors, without named tensors, or with adapters that are not whole.
    """
    parts = read_parts(path)
    head = {name: tensor for name, tensor in parts.regular.items() if name.startswith(_HEAD)}
    regular = {name: tensor for name, tensor in parts.regular.items() if name not in head}
    averaged = {name if name.startswith(_HEAD) else f"net.{name}": t for name, t in parts.averaged.items()}
    # Trainers that average the network alone leave the head out, which is no part of the network.
    use_average = bool(averaged) and (weights == "ema" or not regular)
    state = NamedTensors(head | averaged if use_average else head | regular)
    other = regular if use_average else [f"net_ema.{name}" for name in parts.averaged]
    state.passed_over = (*parts.odd, *other)
    if averaged:
        state.taken = (
            f"{'averaged' if use_average else 'regular'} weights{'' if other else ', the file has no others'}"
        )
    return merge_inside(state, str(path), lora_alpha)


def remove_checkpoint(folder: Path, step: int) -> None:
    """Delete one save: the distributed checkpoint and the files exported beside it."""
    shutil.rmtree(folder / iteration_name(step), ignore_errors=True)
    for weights in ("ema", "reg"):
        shutil.rmtree(folder / f"{iteration_name(step)}_{weights}_lora", ignore_errors=True)
    for exported in (weights_file(folder, step, "ema"), weights_file(folder, step, "reg"), joint_file(folder, step)):
        beside(exported).unlink(missing_ok=True)
        exported.unlink(missing_ok=True)


def remove_old(folder: Path, newest: int, keep: int) -> None:
    """Delete all but the ``keep`` newest saves up to step ``newest``, with what was exported from them."""
    for old in old_saves(saved_steps(folder), newest, keep):
        remove_checkpoint(folder, old)
