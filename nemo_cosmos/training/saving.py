"""Saves of a run: the distributed checkpoint, and the files exported from it."""

from __future__ import annotations

import json
import os
import shutil
import time
from pathlib import Path

import lightning.pytorch as pl
import torch
from rich.console import Console
from torch.distributed.checkpoint import CheckpointException

from nemo_cosmos.checkpoint.distributed import DistributedCheckpoint
from nemo_cosmos.checkpoint.files import (
    MODEL_CONFIG,
    Weights,
    iteration_name,
    remove_checkpoint,
    save_tensors,
    saved_steps,
    weights_file,
    write_latest,
)
from nemo_cosmos.checkpoint.lora import adapter_folder, save_adapter, write_spec
from nemo_cosmos.checkpoint.released import ReleasedTensors
from nemo_cosmos.checkpoint.sources import RunWeights, run_adapters
from nemo_cosmos.config import CheckpointConfig
from nemo_cosmos.errors import InputError
from nemo_cosmos.models.dit import DiTConfig
from nemo_cosmos.models.dit.lora import LoraSpec
from nemo_cosmos.training.model import CosmosModule


class CheckpointCallback(pl.Callback):
    """Saves every n steps and at the end: the distributed checkpoint, and the original layout beside it.

    A save is written under a temporary name and renamed, and ``latest_checkpoint.txt`` is rewritten last, so a run
    that dies while it saves resumes from the save before. The exported files are read from the distributed checkpoint
    and written tensor by tensor by one rank each.

    Args:
        has_average: whether the saves hold the moving average.
        base: where the weights came from, recorded beside exported adapters.
    """

    def __init__(self, folder: Path, config: CheckpointConfig, *, has_average: bool, base: str | None = None) -> None:
        self.folder, self.config, self.base = folder, config, base
        self.kinds: tuple[Weights, ...] = ("reg", "ema") if has_average else ("reg",)
        self.saved_step: int | None = None

    def on_train_start(self, trainer: pl.Trainer, pl_module: CosmosModule) -> None:  # type: ignore[override]
        self.network, self.lora = pl_module.options.dit, pl_module.options.lora
        if trainer.is_global_zero:
            self.folder.mkdir(parents=True, exist_ok=True)
            (self.folder / MODEL_CONFIG).write_text(json.dumps(self.network.to_dict(), indent=2) + "\n")
            if self.lora is not None:
                write_spec(self.folder, self.lora)
            for leftover in self.folder.glob(".*"):
                remove_leftover(leftover)

    def on_train_batch_end(self, trainer: pl.Trainer, *args: object, **kwargs: object) -> None:
        if trainer.global_step % self.config.every_n_steps == 0:
            self.save(trainer)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self.saved_step != trainer.global_step:
            self.save(trainer)

    def save(self, trainer: pl.Trainer) -> None:
        """Collective over all ranks.

        Raises:
            InputError: on every rank, when the disk is full or the folder not writable; the save before stays the
                newest.
        """
        step = trainer.global_step
        name = iteration_name(step)
        temporary = self.folder / f".{name}.tmp"
        start = time.perf_counter()
        try:
            trainer.save_checkpoint(temporary)
            written = time.perf_counter()
            if self.config.export:
                self.export(temporary, step)
        except (CheckpointException, OSError, InputError) as error:
            if trainer.is_global_zero:
                shutil.rmtree(temporary, ignore_errors=True)
            if isinstance(error, InputError):
                raise
            raise InputError(
                f"{self.folder / name}: could not be written ({_reason(error)}); the save before is whole: free "
                "space, then start the run again"
            ) from error
        if trainer.is_global_zero:
            os.replace(temporary, self.folder / name)
            write_latest(self.folder, step)
            for old in saved_steps(self.folder)[: -self.config.keep]:
                remove_checkpoint(self.folder, old)
            size = sum(file.stat().st_size for file in (self.folder / name).rglob("*") if file.is_file())
            exported = f", exported in {time.perf_counter() - written:.1f} s" if self.config.export else ""
            Console(highlight=False, soft_wrap=True).print(
                f"saved {self.folder / name}: {size / 1e9:.2f} GB in {written - start:.1f} s{exported}"
            )
        self.saved_step = step
        torch.distributed.barrier()

    def export(self, save: Path, step: int) -> None:
        """Regular weights, and the moving average in fp32, as flat files with the released names.

        Of a run with adapters, the adapters alone, as PEFT folders.

        Args:
            save: the distributed checkpoint.
        """
        rank, ranks = torch.distributed.get_rank(), torch.distributed.get_world_size()
        failure: Exception | None = None
        try:
            for number, weights in enumerate(self.kinds):
                if number % ranks == rank:
                    export_save(save, self.folder, step, weights, self.network, self.lora, base=self.base)
        except (InputError, OSError) as error:
            failure = error
        failures: list[Exception | None] = [None] * ranks
        torch.distributed.all_gather_object(failures, failure)
        for found in failures:
            if found is not None:
                raise found


def export_save(
    save: Path,
    folder: Path,
    step: int,
    weights: Weights,
    network: DiTConfig,
    lora: LoraSpec | None,
    *,
    base: str | None = None,
) -> None:
    """One exported file, or one PEFT folder of a run with adapters, from a distributed checkpoint.

    Args:
        save: the distributed checkpoint; ``folder`` gets the file.
        base: recorded beside adapters.

    Raises:
        InputError: the disk is full or the folder not writable; nothing is left behind.
    """
    checkpoint = DistributedCheckpoint(save)
    if lora is None:
        tensors = ReleasedTensors(network, RunWeights(checkpoint, network, weights))
        save_tensors(weights_file(folder, step, weights), tensors)
    else:
        adapters = run_adapters(checkpoint, network, lora, weights)
        save_adapter(adapter_folder(folder, step, weights), lora, adapters, base=base)


def _reason(error: CheckpointException | OSError) -> BaseException:
    """PyTorch tells every rank which of them failed, and why."""
    return next(iter(error.failures.values()))[0] if isinstance(error, CheckpointException) else error


def remove_leftover(path: Path) -> None:
    """Delete what an interrupted save left."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()
