"""Steps whose loss or gradients are not finite: they change no weight, are named, and end the run when they repeat."""

from __future__ import annotations

import logging
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor

from nemo_cosmos.training.model import DenoisingModel, stages

logger = logging.getLogger(__name__)
EXIT_STATUS = 3
_NAMED = 16


class BadSteps:
    """Counts steps that were skipped.

    Attributes:
        current: whether the step that was just computed is skipped.
        total: since the process began.
        in_a_row: up to the current step.
    """

    def __init__(self) -> None:
        self.current = False
        self.total = self.in_a_row = 0
        self.samples: dict[str, float] = {}
        """Of the current step: keys and noise levels, where it is skipped."""

    def examine(self, chunks: list[Any]) -> None:
        """Look at the loss and the reduced gradients of a step; collective over all ranks."""
        models = stages(chunks)
        finite = [model.finite for model in models if model.finite is not None]
        finite += [_all_finite(buffer.grad_data) for chunk in chunks for buffer in chunk.buffers if buffer.numel]
        bad = ~torch.stack([value.to(finite[0].device) for value in finite]).all()
        flag = bad.to(torch.int32)
        torch.distributed.all_reduce(flag, torch.distributed.ReduceOp.MAX)
        self.current = bool(flag)
        self.in_a_row = self.in_a_row + 1 if self.current else 0
        self.total += self.current
        self.samples = _gather_samples(models) if self.current else {}
        for model in models:
            model.forget_step()

    def __str__(self) -> str:
        named = [f"{key} (sigma {sigma:.4g})" for key, sigma in sorted(self.samples.items())]
        more = f" and {len(named) - _NAMED} more" if len(named) > _NAMED else ""
        return f"samples {', '.join(named[:_NAMED])}{more}"


def _all_finite(values: Tensor) -> Tensor:
    # The largest magnitude takes no memory beside, unlike a mask, and is not finite where any element is not.
    return torch.isfinite(torch.linalg.vector_norm(values, float("inf")))


def _gather_samples(models: list[DenoisingModel]) -> dict[str, float]:
    mine = {
        key: sigma
        for model in models
        for keys, sigmas in model.drawn
        for key, sigma in zip(keys, sigmas.tolist(), strict=True)
    }
    everyone: list[dict[str, float]] = [{}] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(everyone, mine)
    return {key: sigma for part in everyone for key, sigma in part.items()}


class BadStepsCallback(pl.Callback):
    """Logs each skipped step, and ends the run with status 3 after ``limit`` in a row; the saves before stay."""

    def __init__(self, bad_steps: BadSteps, limit: int) -> None:
        self.bad_steps, self.limit = bad_steps, limit

    def on_train_batch_end(self, trainer: pl.Trainer, *args: Any, **kwargs: Any) -> None:
        bad = self.bad_steps
        if not bad.current:
            return
        if trainer.is_global_zero:
            logger.warning("step %d skipped: its loss or gradients are not finite; %s", trainer.global_step, bad)
        if bad.in_a_row < self.limit:
            return
        if trainer.is_global_zero:
            logger.error(
                "%d steps in a row were not finite (trainer.max_bad_steps): the run ends, the saves before stay. Look "
                "at these samples (nemo-cosmos validate), or lower optimizer.lr, and start the run again",
                bad.in_a_row,
            )
        raise SystemExit(EXIT_STATUS)
