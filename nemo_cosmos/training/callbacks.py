"""What happens around a training step: metrics and the moving average."""

from __future__ import annotations

import resource
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lightning.pytorch as pl
import torch
from megatron.core import parallel_state
from rich.console import Console

from nemo_cosmos.run_folder import METRICS as METRICS_FILE
from nemo_cosmos.run_folder import append_metrics, forget_later_steps
from nemo_cosmos.training.ema import ShardedEma
from nemo_cosmos.training.model import METRICS, DenoisingModel, stages
from nemo_cosmos.training.optimizer import CosmosOptimizer
from nemo_cosmos.training.strategy import CosmosStrategy

if TYPE_CHECKING:
    from nemo_cosmos.training.online import OnlineEncoder


def denoising_models(trainer: pl.Trainer) -> list[DenoisingModel]:
    """This rank's (virtual) pipeline stages, without wrappers."""
    return stages(trainer.strategy.megatron_parallel)


class EmaCallback(pl.Callback):
    """Averages the weights after every optimizer step and hands the average to the strategy for checkpoints."""

    def __init__(self, rate: float) -> None:
        self.rate = rate
        self.ema: ShardedEma | None = None

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        self.ema = None

    def attach(self, strategy: CosmosStrategy, optimizer: CosmosOptimizer) -> None:
        """Start from the current weights."""
        self.ema = strategy.ema = ShardedEma(optimizer.mcore_optimizer, self.rate)

    def on_train_batch_end(self, trainer: pl.Trainer, *args: Any, **kwargs: Any) -> None:
        assert self.ema is not None
        optimizer: CosmosOptimizer = trainer.optimizers[0]
        if not optimizer.bad_steps.current:
            self.ema.update(trainer.global_step - 1)


class MetricsCallback(pl.Callback):
    """One object a step in ``metrics.jsonl``, one line on the console, and the same numbers in TensorBoard.

    ``tokens`` gives how many a step, counted from 0, has over all ranks.
    """

    def __init__(
        self,
        folder: Path,
        *,
        tokens: Callable[[int], int],
        every_n_steps: int,
        max_steps: int,
        encoder: OnlineEncoder | None = None,
    ) -> None:
        self.path = folder / METRICS_FILE
        self.encoder = encoder
        self.tokens, self.every_n_steps, self.max_steps = tokens, every_n_steps, max_steps
        self.values: torch.Tensor | None = None
        self.start = 0.0
        self.elapsed = 0.0
        self.steps = 0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.is_global_zero:
            forget_later_steps(self.path, trainer.global_step)
            if self.encoder is not None:
                Console(highlight=False, soft_wrap=True).print(
                    f"data.mode=online: every step encodes its clips anew ({self.encoder}); `nemo-cosmos prepare` "
                    "encodes them once"
                )

    def on_train_batch_start(self, trainer: pl.Trainer, *args: Any, **kwargs: Any) -> None:
        self.start = time.perf_counter()

    def on_megatron_step_end(self, step: Any, microbatch_outputs: Any, reduced: Any = None) -> None:
        """Called by NeMo on every rank; only the last pipeline stage has numbers."""
        device = torch.cuda.current_device() if torch.cuda.is_available() else "cpu"
        values = torch.zeros(len(METRICS), device=device)
        if isinstance(reduced, dict):
            values = torch.stack([reduced[name] for name in METRICS]).to(device)
        if parallel_state.get_pipeline_model_parallel_world_size() > 1:
            torch.distributed.broadcast(
                values,
                parallel_state.get_pipeline_model_parallel_last_rank(),
                group=parallel_state.get_pipeline_model_parallel_group(),
            )
        self.values = values

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, *args: Any, **kwargs: Any) -> None:
        step = trainer.global_step
        assert self.values is not None
        if step % self.every_n_steps and step != self.max_steps:
            self.elapsed, self.steps = self.elapsed + time.perf_counter() - self.start, self.steps + 1
            return
        values = dict(zip(METRICS, self.values.tolist(), strict=True))
        tokens = sum(map(self.tokens, range(step - 1 - self.steps, step)))
        seconds = (self.elapsed + time.perf_counter() - self.start) / (self.steps + 1)
        optimizer: CosmosOptimizer = trainer.optimizers[0]
        record = {
            "step": step,
            **values,
            "lr": optimizer.param_groups[0]["lr"],
            "grad_norm": optimizer.grad_norm,
            "seconds": seconds,
            "data_wait_seconds": pl_module.data_wait_seconds / (self.steps + 1),
            "tokens_per_second": tokens / (self.steps + 1) / seconds,
            "memory_bytes": memory_bytes(),
            "skipped_steps": optimizer.bad_steps.total,
        }
        encoding = ""
        if self.encoder is not None:
            # The loader encodes while the step waits for it.
            encode_seconds = self.encoder.seconds / (self.steps + 1)
            record["encode_seconds"] = encode_seconds
            record["data_wait_seconds"] -= encode_seconds
            encoding = f"encode {encode_seconds:.3f} s ({encode_seconds / seconds:.0%} of the step)  "
            self.encoder.seconds = 0.0
        pl_module.data_wait_seconds, self.elapsed, self.steps = 0.0, 0.0, 0
        if trainer.is_global_zero:
            append_metrics(self.path, record)
            left = (self.max_steps - step) * seconds
            Console(highlight=False, soft_wrap=True).print(
                f"step {step}/{self.max_steps}  loss {record['loss']:.5f}  edm_mse {record['edm_mse']:.5f}  "
                f"grad_norm {record['grad_norm']:.3f}  lr {record['lr']:.3e}  {seconds:.3f} s/step  "
                f"wait {record['data_wait_seconds']:.4f} s  {encoding}{record['tokens_per_second']:,.0f} tokens/s  "
                f"{record['memory_bytes'] / 2**30:.2f} GiB  {left / 60:.1f} min left"
            )
            for logger in trainer.loggers:
                logger.log_metrics({k: v for k, v in record.items() if k != "step"}, step=step)


def memory_bytes() -> int:
    """Most memory held so far: allocated on the GPU, or resident in this process on a CPU."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
