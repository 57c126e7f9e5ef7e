"""NeMo's Megatron strategy with the moving average in the checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from megatron.core.distributed import DistributedDataParallelConfig
from nemo.lightning.pytorch.strategies import MegatronStrategy

from nemo_cosmos.config import ParallelConfig
from nemo_cosmos.training.ema import ShardedEma


class CosmosStrategy(MegatronStrategy):
    """Saves and loads ``ema`` beside model and optimizer; everything else is NeMo's."""

    ema: ShardedEma | None = None

    def save_checkpoint(self, checkpoint: dict[str, Any], filepath: str | Path, storage_options: Any = None) -> None:
        checkpoint["sharded_state_dict"] = self.megatron_parallel.sharded_state_dict()
        if self.ema is not None:
            checkpoint["ema"] = self.ema.sharded_state_dict(checkpoint["sharded_state_dict"])
        super().save_checkpoint(checkpoint, filepath, storage_options)

    def load_checkpoint(self, checkpoint_path: str | Path, selective_restore: bool = False) -> dict[str, Any]:
        checkpoint = super().load_checkpoint(checkpoint_path, selective_restore)
        if self.ema is not None:
            metadata = self.unwrapped_checkpoint_io.load_content_metadata(checkpoint_path)
            model = self.megatron_parallel.sharded_state_dict(metadata=metadata)
            wanted = {"ema": self.ema.sharded_state_dict(model, is_loading=True)}
            loaded = self.checkpoint_io.load_checkpoint(
                checkpoint_path, sharded_state_dict=wanted, strict="raise_unexpected"
            )
            self.ema.load(model, loaded["ema"])
        return checkpoint

    def load_optimizer_state_dict(self, checkpoint: Any, selective_restore: bool = False) -> None:
        # NeMo builds a CUDA device mesh here, which only its FSDP path uses.
        if self.should_restore_optimizer_states(selective_restore=selective_restore):
            for optimizer, state in zip(self.optimizers, checkpoint["optimizer"], strict=True):
                optimizer.load_state_dict(state)


def build_strategy(parallel: ParallelConfig, *, dtype: torch.dtype) -> CosmosStrategy:
    """Process groups, DDP and checkpoint format for a layout."""
    return CosmosStrategy(
        tensor_model_parallel_size=parallel.tensor,
        pipeline_model_parallel_size=parallel.pipeline,
        virtual_pipeline_model_parallel_size=parallel.virtual_pipeline,
        context_parallel_size=parallel.context,
        sequence_parallel=parallel.sequence,
        pipeline_dtype=dtype,
        ddp=DistributedDataParallelConfig(
            use_distributed_optimizer=parallel.distributed_optimizer,
            grad_reduce_in_fp32=True,
            check_for_nan_in_grad=False,
        ),
        ckpt_async_save=False,
        # Megatron's parallel writer forgets which copy of a position table is the first when one rank holds two.
        ckpt_parallel_save=parallel.virtual_pipeline is None,
        ckpt_parallel_load=parallel.virtual_pipeline is None,
        # torch's Adam saves in this format only; it loads on any layout.
        ckpt_optim_fully_reshardable=parallel.distributed_optimizer,
        # What a run asks for must be there; the average beside it is loaded on its own.
        ckpt_load_strictness="raise_unexpected",
        replace_progress_bar=False,
    )
