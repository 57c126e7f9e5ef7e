"""A run that is asked to end finishes its step, saves, says so and ends with the signal's status."""

from __future__ import annotations

from typing import Any

import lightning.pytorch as pl

from nemo_cosmos.interrupts import WITH_SAVE, Interrupts
from nemo_cosmos.training.saving import CheckpointCallback


class SignalCallback(pl.Callback):
    """Ends the run with status 128 + signal (143, 130, 138) after a save, in whichever process the signal arrived.

    Before the first step a signal ends the process at once.
    """

    def __init__(self, checkpoint: CheckpointCallback, interrupts: Interrupts) -> None:
        self.checkpoint, self.interrupts = checkpoint, interrupts

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.interrupts.defer(WITH_SAVE)

    def on_train_batch_end(self, trainer: pl.Trainer, *args: Any, **kwargs: Any) -> None:
        """Collective: all ranks end when one has been asked to."""
        if number := self.interrupts.anywhere():
            if self.checkpoint.saved_step != trainer.global_step:
                self.checkpoint.save(trainer)
            raise self.interrupts.ended_with_save(number, trainer.global_step, is_first=trainer.is_global_zero)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """A signal during the last save; collective."""
        self.on_train_batch_end(trainer)
        self.interrupts.stop_deferring()
        self.interrupts.end_if_asked()
