"""Damaged saves: found by all ranks together, and passed over where the user asks for it."""

from __future__ import annotations

import logging
from pathlib import Path

import torch

from nemo_cosmos.checkpoint.files import iteration_name, latest_step, saved_steps, set_aside, step_of, write_latest
from nemo_cosmos.checkpoint.store import COMMON, INDEX, CheckpointReader, read_common, tensors_folder
from nemo_cosmos.checksums import Verify, verify
from nemo_cosmos.errors import InputError

logger = logging.getLogger(__name__)


def earlier_saves(save: Path) -> list[Path]:
    """Saves of the same run before one of them, newest first."""
    step = step_of(save.name)
    assert step is not None
    return [save.parent / iteration_name(other) for other in reversed(saved_steps(save.parent)) if other < step]


def look_at(save: Path, mode: Verify) -> None:
    """What can be told of a save before there are processes to share the work: sizes, index, plain values.

    Raises:
        InputError: a part of it is missing or damaged.
    """
    folder, remedy = tensors_folder(save), _remedy(save)
    if not save.is_dir():
        raise InputError(f"{save}: not there: {remedy}")
    if verify(folder, "size", remedy=remedy):
        for name in (INDEX, COMMON):
            verify(folder / name, mode, remedy=remedy)
    CheckpointReader(save)
    read_common(folder)


def whole_save(save: Path, mode: Verify, *, previous: bool) -> Path:
    """The save to go on from, its content verified by all ranks, each a share; collective.

    Args:
        save: the newest that may be whole.
        previous: take the newest earlier one where it is damaged, and set aside what is passed over.

    Raises:
        InputError: on every rank, when it is damaged, and so is every other that may be taken.
    """
    from nemo_cosmos.training.saving import together

    rank, ranks = torch.distributed.get_rank(), torch.distributed.get_world_size()

    def check(candidate: Path) -> None:
        if candidate != save:
            look_at(candidate, mode)
        verify(tensors_folder(candidate), mode, share=(rank, ranks), remedy=_remedy(candidate))

    for candidate in [save, *earlier_saves(save)] if previous else [save]:
        try:
            together(lambda: check(candidate), ranks=ranks)  # noqa: B023
        except InputError as error:
            problem = error
            if rank == 0 and previous:
                logger.warning("%s", error)
        else:
            together(lambda: _go_back_to(candidate), ranks=1 if previous else 0)  # noqa: B023
            return candidate
    raise problem


def _go_back_to(save: Path) -> None:
    """Let a save be the newest: the later ones, which were found damaged, get names that nothing takes for a save."""
    step, newest = step_of(save.name), latest_step(save.parent)
    assert step is not None and newest is not None
    for other in saved_steps(save.parent):
        if step < other <= newest:
            kept = set_aside(save.parent / iteration_name(other))
            logger.warning("resume=previous: the damaged save of step %d is kept as %s", other, kept)
    if step < newest:
        write_latest(save.parent, step)
        logger.warning("resume=previous: the run goes on from step %d", step)


def _remedy(save: Path) -> str:
    earlier = [other.name for other in earlier_saves(save)]
    if not earlier:
        return "there is no earlier save; take it from a copy, or start anew in another output_dir"
    return f"start again with resume=previous to go on from {earlier[0]}, or take it from a copy"
