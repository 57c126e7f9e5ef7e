"""Moving average of the weights, sharded like the optimizer's main parameters.

Each rank averages the fp32 elements that its optimizer updates, so the memory of the average falls with data
parallelism.
"""

from __future__ import annotations

import torch
from megatron.core.optimizer import MegatronOptimizer
from torch import Tensor

from nemo_cosmos.diffusion.ema import power_ema_beta, power_ema_exponent
from nemo_cosmos.training.optimizer import MainShard, main_shards


class ShardedEma:
    """Power-function average (``nemo_cosmos.diffusion.ema``) of every trained parameter."""

    def __init__(self, optimizer: MegatronOptimizer, rate: float) -> None:
        self.exponent = power_ema_exponent(rate)
        self.shards: list[MainShard] = list(main_shards(optimizer))
        self.averages: list[Tensor] = [shard.main.detach().float().clone() for shard in self.shards]

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Average in the weights after optimizer step ``step`` (0-based)."""
        weight = 1.0 - power_ema_beta(step, self.exponent)
        mains = [shard.main.detach().float() for shard in self.shards]
        torch._foreach_lerp_(self.averages, mains, weight)
