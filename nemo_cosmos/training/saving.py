"""Saves of a run: the distributed checkpoint, and the files exported from it."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import lightning.pytorch as pl
import torch
from rich.console import Console
from torch import Tensor
from torch.distributed.checkpoint import CheckpointException

from nemo_cosmos.atomic import put_folder, write_json
from nemo_cosmos.checkpoint.distributed import DistributedCheckpoint
from nemo_cosmos.checkpoint.files import (
    MODEL_CONFIG,
    Weights,
    iteration_name,
    joint_file,
    remove_old,
    weights_file,
    write_latest,
)
from nemo_cosmos.checkpoint.lora import adapter_folder, save_adapter, write_spec
from nemo_cosmos.checkpoint.released import JointTensors, ReleasedTensors
from nemo_cosmos.checkpoint.sources import RunWeights, run_adapters, run_whole
from nemo_cosmos.checkpoint.stream import fill, lay_out, shape_of
from nemo_cosmos.checksums import put_archive
from nemo_cosmos.config import CheckpointConfig
from nemo_cosmos.errors import InputError
from nemo_cosmos.training.model import CosmosModule, stages


class CheckpointCallback(pl.Callback):
    """Saves every n steps and at the end: the distributed checkpoint, and the original layout beside it.

    A save is written under a temporary name and renamed, and ``latest_checkpoint.txt`` is rewritten last, so a run
    that dies while it saves resumes from the save before. The exported files are read from the distributed checkpoint,
    tensor by tensor.

    Args:
        has_average: whether the saves hold the moving average.
        base: where the weights came from, recorded beside exported adapters.
    """

    def __init__(self, folder: Path, config: CheckpointConfig, *, has_average: bool, base: str | None = None) -> None:
        self.folder, self.config, self.base = folder, config, base
        self.kinds: tuple[Weights, ...] = ("reg", "ema") if has_average else ("reg",)
        self.saved_step: int | None = None

    def on_train_start(self, trainer: pl.Trainer, pl_module: CosmosModule) -> None:
        self.network, self.lora = pl_module.options.dit, pl_module.options.lora
        if trainer.is_global_zero:
            self.folder.mkdir(parents=True, exist_ok=True)
            write_json(self.folder / MODEL_CONFIG, self.network.to_dict(), indent=2)
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
        if not _weights_are_finite(trainer):
            raise InputError(
                f"step {step}: some weights are not finite and are not saved; the save before is whole. Start the run "
                "again with a lower optimizer.lr"
            )
        temporary = self.folder / f".{name}.tmp"
        start = time.perf_counter()
        try:
            trainer.save_checkpoint(temporary)
            written = time.perf_counter()
            if self.config.export:
                self.export(temporary, step)
            together(lambda: self.put_in_place(temporary, step), ranks=1)
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
            size = sum(file.stat().st_size for file in (self.folder / name).rglob("*") if file.is_file())
            exported = f", exported in {time.perf_counter() - written:.1f} s" if self.config.export else ""
            Console(highlight=False, soft_wrap=True).print(
                f"saved {self.folder / name}: {size / 1e9:.2f} GB in {written - start:.1f} s{exported}"
            )
        self.saved_step = step
        torch.distributed.barrier()

    def put_in_place(self, temporary: Path, step: int) -> None:
        """The save takes its name, counts as the newest, and the oldest go."""
        put_folder(temporary, self.folder / iteration_name(step))
        write_latest(self.folder, step)
        remove_old(self.folder, step, self.config.keep)

    def export(self, save: Path, step: int) -> None:
        """Regular weights, and the moving average in fp32, as flat files with the released names, or both in one.

        Of a run with adapters, these and what is trained beside them, as PEFT folders. Collective over all ranks.

        Args:
            save: the distributed checkpoint.

        Raises:
            InputError: on every rank, when the disk is full or the folder not writable; no file is left half-written.
        """
        checkpoint = DistributedCheckpoint(save)
        if self.lora is None:
            files = {
                weights: ReleasedTensors(self.network, RunWeights(checkpoint, self.network, weights))
                for weights in self.kinds
            }
            if self.config.export_layout == "joint":
                write_together(joint_file(self.folder, step), JointTensors(files["reg"], files.get("ema")))
                return
            for weights, tensors in files.items():
                write_together(weights_file(self.folder, step, weights), tensors)
        else:
            for weights in self.kinds:
                folder, spec = adapter_folder(self.folder, step, weights), self.lora
                adapters = run_adapters(checkpoint, self.network, spec, weights)
                whole = run_whole(checkpoint, self.network, spec, weights)
                write = partial(save_adapter, folder, spec, adapters, whole=whole, base=self.base)
                together(write, ranks=1)


def write_together(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """A file of tensors that the processes of the first node fill, each a part of it; collective over all ranks.

    Raises:
        InputError: on every rank, when one of them could not write; nothing is left behind.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    ranks, rank = int(os.environ["LOCAL_WORLD_SIZE"]), torch.distributed.get_rank()
    try:
        together(lambda: _lay_out(temporary, tensors), ranks=1)
        together(lambda: fill(temporary, tensors, _share(tensors, rank, ranks)), ranks=ranks)
        together(lambda: put_archive(temporary, path), ranks=1)
    except (OSError, RuntimeError) as error:
        if rank == 0:
            temporary.unlink(missing_ok=True)
        raise InputError(f"{path}: could not be written ({error}); free space or choose another output_dir") from error


def _lay_out(path: Path, tensors: Mapping[str, Tensor]) -> None:
    path.parent.mkdir(exist_ok=True)
    lay_out(path, tensors)


def together(action: Callable[[], object], *, ranks: int) -> None:
    """Do something on the first ``ranks``, wait for all of them, and raise everywhere what one of them raised."""
    failure: Exception | None = None
    if torch.distributed.get_rank() < ranks:
        try:
            action()
        except (InputError, OSError, RuntimeError) as error:
            failure = error
    failures: list[Exception | None] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(failures, failure)
    for found in failures:
        if found is not None:
            raise found


def _share(tensors: Mapping[str, Tensor], rank: int, ranks: int) -> list[str]:
    """A contiguous part of the names, about as many elements for each rank."""
    sizes = {name: torch.Size(shape_of(tensors, name)).numel() for name in tensors}
    total, before, mine = sum(sizes.values()), 0, []
    for name, size in sizes.items():
        if before * ranks // total == rank:
            mine.append(name)
        before += size
    return mine


def _weights_are_finite(trainer: pl.Trainer) -> bool:
    """Of all ranks."""
    chunks = stages(trainer.strategy.megatron_parallel)
    norms = [torch.linalg.vector_norm(p.detach(), float("inf")) for chunk in chunks for p in chunk.parameters()]
    bad = (~torch.isfinite(torch.stack([norm.float() for norm in norms]))).any().to(torch.int32)
    torch.distributed.all_reduce(bad, torch.distributed.ReduceOp.MAX)
    return not bool(bad)


def _reason(error: CheckpointException | OSError) -> BaseException:
    """PyTorch tells every rank which of them failed, and why."""
    return next(iter(error.failures.values()))[0] if isinstance(error, CheckpointException) else error


def remove_leftover(path: Path) -> None:
    """Delete what an interrupted save left."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()
