"""Steps whose loss or gradients are not finite: they change no weight, are named, and end the run when they repeat."""

from __future__ import annotations

from typing import Any

import lightning.pytorch as pl
import torch

from nemo_cosmos.training.model import DenoisingModel, stages
from nemo_cosmos.training.skipped_steps import SkippedSteps, all_finite


class BadSteps(SkippedSteps):
    """The steps of a world model that were skipped; their samples with keys and noise levels."""

    def examine(self, chunks: list[Any]) -> None:
        """Look at the loss and the reduced gradients of a step; collective over all ranks."""
        models = stages(chunks)
        finite = [model.finite for model in models if model.finite is not None]
        finite += [all_finite([buffer.grad_data]) for chunk in chunks for buffer in chunk.buffers if buffer.numel]
        bad = ~torch.stack([value.to(finite[0].device) for value in finite]).all()
        flag = bad.to(torch.int32)
        torch.distributed.all_reduce(flag, torch.distributed.ReduceOp.MAX)
        self.count(bool(flag))
        if self.current:
            self.samples = [f"{key} (sigma {sigma:.4g})" for key, sigma in _gather_samples(models).items()]
        for model in models:
            model.forget_step()


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
        self.bad_steps.tell(trainer.global_step, self.limit, is_first=trainer.is_global_zero)
