"""NeMo's Megatron strategy with checkpoints that every rank writes and reads in parts."""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.plugins.io import TorchCheckpointIO
from megatron.core.distributed import DistributedDataParallelConfig
from megatron.core.num_microbatches_calculator import destroy_num_microbatches_calculator
from nemo.lightning.pytorch.strategies import MegatronStrategy
from rich.console import Console

from nemo_cosmos.checkpoint.sharded import load_parts, save_parts
from nemo_cosmos.checkpoint.store import BUFFERS, CheckpointReader, read_common, tensors_folder
from nemo_cosmos.checksums import MANIFEST, Verify
from nemo_cosmos.config import ParallelConfig
from nemo_cosmos.training.damaged import whole_save
from nemo_cosmos.training.ema import ShardedEma
from nemo_cosmos.training.model import stages
from nemo_cosmos.training.optimizer import CosmosOptimizer, adam_steps, parts, set_adam_steps
from nemo_cosmos.training.state import RunState
from nemo_cosmos.upstream.nemo import release_network

ADAM_STEPS = "adam_steps"
_COLLECTIVE_TIMEOUT = timedelta(hours=1)
"""Other ranks wait in a collective while one writes the exported file, which can take minutes on a slow disk."""


class CosmosStrategy(MegatronStrategy):
    """Saves and loads weights, optimizer and average without gathering; everything else is NeMo's.

    Megatron's own formats either gather the optimizer's state in the host memory of one rank (the only one that
    torch's Adam can use) or copy a rank's whole state there before it is written.
    """

    ema: ShardedEma | None = None
    verify: Verify = "auto"
    """Of the save that is loaded."""
    previous = False
    """Whether a damaged one is passed over."""

    def teardown(self) -> None:
        """Let go of the network, so that a process may train again; called after errors, too."""
        if hasattr(self, "megatron_parallel"):
            optimizers: list[Any] = [part for wrapper in self.optimizers for part in parts(wrapper.mcore_optimizer)]
            release_network(self.megatron_parallel, optimizers)
        super().teardown()
        # NeMo refuses another batch size while the one before is remembered.
        destroy_num_microbatches_calculator()

    def run_state(self) -> RunState:
        """The tensors of the run on this rank."""
        optimizer: CosmosOptimizer = self.optimizers[0]
        return RunState(self.megatron_parallel.sharded_state_dict(), optimizer.mcore_optimizer, self.ema)

    def save_checkpoint(self, checkpoint: dict[str, Any], filepath: str | Path, storage_options: Any = None) -> None:
        state = self.run_state()
        common = {
            **checkpoint,
            "state_dict": {},
            "optimizer_states": {},
            ADAM_STEPS: adam_steps(state.optimizer),
            BUFFERS: stages(self.megatron_parallel)[0].net.original_extras,
        }
        save_parts(Path(filepath) / "weights", state.to_save(), common)

    def load_checkpoint(self, checkpoint_path: str | Path, selective_restore: bool = False) -> dict[str, Any]:
        start = time.perf_counter()
        checkpoint_path = whole_save(Path(checkpoint_path), self.verify, previous=self.previous)
        verified = time.perf_counter()
        known = (tensors_folder(checkpoint_path) / MANIFEST).is_file()
        checked = f"verified in {verified - start:.1f} s" if known else "no checksums beside it, taken unverified"
        reader = CheckpointReader(checkpoint_path)
        common = read_common(reader.folder)
        state = self.run_state()
        load_parts(reader, state.to_load(reader))
        # Saves of earlier versions took a step of Adam in every step of the run.
        set_adam_steps(state.optimizer, common.get(ADAM_STEPS, common["global_step"]))
        for stage in stages(self.megatron_parallel):
            stage.net.original_extras = common.get(BUFFERS, {})
        if self.is_global_zero:
            Console(highlight=False, soft_wrap=True).print(
                f"resumed from {checkpoint_path}: {checked}, read in {time.perf_counter() - verified:.1f} s"
            )
        return {**common, "state_dict": {}, "optimizer_states": {}}

    def load_model_state_dict(self, checkpoint: Mapping[str, Any], strict: bool = True) -> None:
        """Nothing is left to do: :meth:`load_checkpoint` reads into the network's memory."""

    def load_optimizer_state_dict(self, checkpoint: Any, selective_restore: bool = False) -> None:
        """Nothing is left to do: :meth:`load_checkpoint` reads into the optimizer's memory."""


def build_strategy(
    parallel: ParallelConfig, *, dtype: torch.dtype, verify: Verify = "auto", previous: bool = False
) -> CosmosStrategy:
    """Process groups, DDP and checkpoints for a layout.

    Args:
        verify, previous: of the save that is resumed from, see :func:`~nemo_cosmos.training.damaged.whole_save`.
    """
    strategy = CosmosStrategy(
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
        timeout=_COLLECTIVE_TIMEOUT,
        # Unused; NeMo's own would be made, with all formats that Megatron knows, when a run ends.
        checkpoint_io=TorchCheckpointIO(),
        ckpt_async_save=False,
        replace_progress_bar=False,
    )
    strategy.verify, strategy.previous = verify, previous
    return strategy
