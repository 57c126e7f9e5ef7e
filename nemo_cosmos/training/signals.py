"""A run that is asked to end finishes its step, saves, says so and ends with the signal's status."""

from __future__ import annotations

import signal
from typing import Any

import lightning.pytorch as pl
from rich.console import Console

from nemo_cosmos.interrupts import Interrupts
from nemo_cosmos.training.saving import CheckpointCallback

NOTICE = "ending after this step, with a save"


def ended_with_save(interrupts: Interrupts, number: int, step: int, *, is_first: bool) -> BaseException:
    """What ends a run after its last save, once the first process has said so."""
    if is_first:
        Console(highlight=False, soft_wrap=True).print(
            f"{signal.Signals(number).name}: ended at step {step}, which is saved"
        )
    return interrupts.ended(number)


class SignalCallback(pl.Callback):
    """Ends the run with status 128 + signal (143, 130, 138) after a save, in whichever process the signal arrived.

    Before the first step a signal ends the process at once.
    """

    def __init__(self, checkpoint: CheckpointCallback, interrupts: Interrupts) -> None:
        self.checkpoint, self.interrupts = checkpoint, interrupts

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.interrupts.defer(NOTICE)

    def on_train_batch_end(self, trainer: pl.Trainer, *args: Any, **kwargs: Any) -> None:
        """Collective: all ranks end when one has been asked to."""
        if number := self.interrupts.anywhere():
            if self.checkpoint.saved_step != trainer.global_step:
                self.checkpoint.save(trainer)
            raise ended_with_save(self.interrupts, number, trainer.global_step, is_first=trainer.is_global_zero)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """A signal during the last save; collective."""
        self.on_train_batch_end(trainer)
        self.interrupts.stop_deferring()
