"""Moving average of the weights, sharded like the optimizer's main parameters.

Each rank averages the fp32 elements that its optimizer updates, so the memory of the average falls with data
parallelism. For a checkpoint or an export the parts of a parameter are put together over the data-parallel group.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from megatron.core import parallel_state
from megatron.core.dist_checkpointing.mapping import ShardedTensor
from megatron.core.optimizer import MegatronOptimizer
from torch import Tensor, nn

from nemo_cosmos.diffusion.ema import power_ema_beta, power_ema_exponent
from nemo_cosmos.training.optimizer import MainShard, main_shards, parts


class ShardedEma:
    """Power-function average (``nemo_cosmos.diffusion.ema``) of every trained parameter."""

    PREFIX = "ema."

    def __init__(self, optimizer: MegatronOptimizer, rate: float) -> None:
        self.optimizer = optimizer
        self.exponent = power_ema_exponent(rate)
        self.shards: list[MainShard] = list(main_shards(optimizer))
        self.averages: list[Tensor] = [shard.main.detach().float().clone() for shard in self.shards]

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Average in the weights after optimizer step ``step`` (0-based)."""
        weight = 1.0 - power_ema_beta(step, self.exponent)
        mains = [shard.main.detach().float() for shard in self.shards]
        torch._foreach_lerp_(self.averages, mains, weight)

    def whole(self, parameters: list[nn.Parameter]) -> list[Tensor]:
        """The average of model parameters in their own (tensor-parallel) shape, fp32 on the CPU, on every rank.

        Collective over the data-parallel group; ``parameters`` in the same order on all its ranks.
        """
        own = {
            id(shard.parameter): (shard, average) for shard, average in zip(self.shards, self.averages, strict=True)
        }
        split = any(hasattr(part, "gbuf_ranges") for part in parts(self.optimizer))
        group = parallel_state.get_data_parallel_group(with_context_parallel=True)
        out = []
        for parameter in parameters:
            full = torch.zeros(parameter.numel(), device=parameter.device)
            if id(parameter) in own:
                shard, average = own[id(parameter)]
                full[shard.start : shard.stop] = average.flatten()
            if split and group.size() > 1:
                torch.distributed.all_reduce(full, group=group)
            out.append(full.view(parameter.shape).cpu())
        return out

    def sharded_state_dict(self, model: dict[str, Any], *, is_loading: bool = False) -> dict[str, ShardedTensor]:
        """Checkpoint entries beside those of ``model`` (its sharded state dict) for every trained parameter."""
        entries = {
            key: entry
            for key, entry in _flatten(model).items()
            if isinstance(entry.data, nn.Parameter) and entry.data.requires_grad
        }
        parameters = [entry.data for entry in entries.values()]
        tensors = [torch.empty(p.shape) for p in parameters] if is_loading else self.whole(parameters)
        return {
            key: replace(entry, key=self.PREFIX + entry.key, data=tensor, dtype=torch.float32)
            for (key, entry), tensor in zip(entries.items(), tensors, strict=True)
        }

    @torch.no_grad()
    def load(self, model: dict[str, Any], loaded: dict[str, Tensor]) -> None:
        """Take this rank's elements from tensors that a checkpoint gave for :meth:`sharded_state_dict`."""
        by_parameter = {id(entry.data): loaded[key] for key, entry in _flatten(model).items() if key in loaded}
        for shard, average in zip(self.shards, self.averages, strict=True):
            full = by_parameter[id(shard.parameter)].flatten()
            average.copy_(full[shard.start : shard.stop].view(average.shape))


def _flatten(model: dict[str, Any], prefix: str = "") -> dict[str, ShardedTensor]:
    # With virtual pipeline stages the state dict holds one dict a chunk.
    out: dict[str, ShardedTensor] = {}
    for key, value in model.items():
        if isinstance(value, dict):
            out.update(_flatten(value, f"{prefix}{key}."))
        elif isinstance(value, ShardedTensor):
            out[prefix + key] = value
    return out
