"""A run that is asked to end finishes its step, saves, says so and ends with the signal's status."""

from __future__ import annotations

import signal
import time
from types import FrameType
from typing import Any

import lightning.pytorch as pl
import torch
from rich.console import Console

from nemo_cosmos.training.saving import CheckpointCallback

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
BURST_SECONDS = 3.0
"""A terminal and torchrun both pass on a Ctrl-C; signals so close together count as one."""


class SignalCallback(pl.Callback):
    """Ends the run with status 128 + signal (143, 130, 138) after a save, in whichever process the signal arrived.

    A second signal ends the process at once. Lightning's own handlers, which would write a checkpoint of another
    format into the working directory under Slurm, are replaced while the run lasts.
    """

    def __init__(self, checkpoint: CheckpointCallback) -> None:
        self.checkpoint = checkpoint
        self.received = 0
        self.at = 0.0
        self.previous: dict[signal.Signals, Any] = {}

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.previous = {number: signal.signal(number, self.note) for number in SIGNALS}

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        for number, handler in self.previous.items():
            signal.signal(number, handler)
        self.previous = {}

    def note(self, number: int, frame: FrameType | None) -> None:
        """The handler: remembers the signal for the end of the step."""
        if self.received and time.monotonic() - self.at > BURST_SECONDS:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
        if not self.received:
            self.received, self.at = number, time.monotonic()
            name = signal.Signals(number).name
            print(f"{name}: ending after this step, with a save; the same again ends at once", flush=True)

    def on_train_batch_end(self, trainer: pl.Trainer, *args: Any, **kwargs: Any) -> None:
        """Collective: all ranks end when one has been asked to."""
        device = torch.cuda.current_device() if torch.cuda.is_available() else "cpu"
        asked = torch.tensor(self.received, device=device)
        torch.distributed.all_reduce(asked, torch.distributed.ReduceOp.MAX)
        number = int(asked)
        if not number:
            return
        if self.checkpoint.saved_step != trainer.global_step:
            self.checkpoint.save(trainer)
        if trainer.is_global_zero:
            Console(highlight=False, soft_wrap=True).print(
                f"{signal.Signals(number).name}: ended at step {trainer.global_step}, which is saved"
            )
        raise SystemExit(128 + number)
