"""AdamW on Megatron's (distributed) optimizer, with the schedule and gradient handling of the Cosmos recipes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from megatron.core.optimizer import MegatronOptimizer, get_megatron_optimizer
from megatron.core.optimizer import OptimizerConfig as MegatronOptimizerConfig
from megatron.core.optimizer.distrib_optimizer import DistributedOptimizer
from megatron.core.optimizer.optimizer import ChainedOptimizer, Float16OptimizerWithFloat16Params
from nemo.core.optim import McoreDistributedOptimizer
from nemo.lightning.megatron_parallel import MegatronParallel
from nemo.lightning.pytorch.optim import MegatronOptimizerModule
from torch import Tensor

from nemo_cosmos.config import OptimizerConfig
from nemo_cosmos.training.upstream import load_adam_without_step


def learning_rate(config: OptimizerConfig, step: int) -> float:
    """The rate of optimizer step ``step`` (0-based): linear warm-up, then linear from f_max to f_min, then f_min."""
    if step < config.warmup_steps:
        factor = config.warmup_start + (config.f_max - config.warmup_start) * step / config.warmup_steps
    elif config.cycle_steps <= config.warmup_steps:
        factor = config.f_min
    else:
        left = (config.cycle_steps - step) / (config.cycle_steps - config.warmup_steps)
        factor = config.f_min + (config.f_max - config.f_min) * max(0.0, left)
    return config.lr * factor


def megatron_optimizer_config(
    config: OptimizerConfig, *, dtype: torch.dtype, distributed: bool
) -> MegatronOptimizerConfig:
    """One parameter group, fp32 main parameters and moments."""
    return MegatronOptimizerConfig(
        optimizer="adam",
        lr=config.lr,
        min_lr=0.0,
        weight_decay=config.weight_decay,
        adam_beta1=config.beta1,
        adam_beta2=config.beta2,
        adam_eps=config.eps,
        clip_grad=config.clip_grad,
        bf16=dtype == torch.bfloat16,
        params_dtype=dtype,
        use_distributed_optimizer=distributed,
    )


class CosmosOptimizer(McoreDistributedOptimizer):
    """NeMo's wrapper that also keeps the gradient norm of the last step."""

    grad_norm: float = 0.0

    def step(self, closure: Any = None) -> Any:
        loss, grad_norm, zeros = super().step(closure)
        self.grad_norm = float(grad_norm) if grad_norm is not None else 0.0
        return loss, grad_norm, zeros

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        # Megatron gives all parameters one step tensor, which torch's Adam would then count up once for each of them.
        for part in parts(self.mcore_optimizer):
            for state in part.optimizer.state.values():
                if torch.is_tensor(state.get("step")):
                    state["step"] = state["step"].clone()

    def sharded_state_dict(
        self, model_sharded_state_dict: Any, optimizer_state_dict: Any = None, is_loading: bool = False, **kwargs: Any
    ) -> Any:
        kwargs.pop("sharding_type", None)
        return self.mcore_optimizer.sharded_state_dict(model_sharded_state_dict, is_loading=is_loading, **kwargs)


class CosmosOptimizerModule(MegatronOptimizerModule):
    """Builds the optimizer for NeMo.

    NeMo 2.7.3 passes arguments that Megatron-Core 0.16 no longer takes, so the optimizer is made here. Weight decay
    applies to every parameter, as in the Cosmos recipes.
    """

    def __init__(self, config: OptimizerConfig, *, dtype: torch.dtype, distributed: bool) -> None:
        super().__init__(megatron_optimizer_config(config, dtype=dtype, distributed=distributed))
        self.recipe = config

    def optimizers(self, model: MegatronParallel) -> list[CosmosOptimizer]:  # type: ignore[override]
        chunks = [chunk.module for chunk in model]
        optimizer = get_megatron_optimizer(self.config, chunks, config_overrides={})
        initialise_state(optimizer)
        return [CosmosOptimizer(optimizer)]

    def finalize_model_grads(self, model: list[Any], *args: Any, **kwargs: Any) -> None:
        """Megatron's reductions, then non-finite gradients become zero before the norm is taken."""
        super().finalize_model_grads(model, *args, **kwargs)
        for chunk in model:
            for buffer in chunk.buffers:
                buffer.grad_data.nan_to_num_(nan=0.0, posinf=0.0, neginf=0.0)

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        rate = learning_rate(self.recipe, trainer.global_step)
        for group in self._optimizers[0].param_groups:
            group["lr"] = rate


def parts(optimizer: MegatronOptimizer) -> list[MegatronOptimizer]:
    """The optimizers behind a chained one."""
    return list(optimizer.chained_optimizers) if isinstance(optimizer, ChainedOptimizer) else [optimizer]


def initialise_state(optimizer: MegatronOptimizer) -> None:
    """Make torch's Adam moments now; resuming and saving need them before the first step."""
    for part in parts(optimizer):
        inner = part.optimizer
        if not isinstance(inner, torch.optim.Optimizer) or inner.state:
            continue
        if isinstance(part, DistributedOptimizer):
            load_adam_without_step(part)
        for group in inner.param_groups:
            for parameter in group["params"]:
                inner.state[parameter] = {
                    "step": torch.tensor(0.0),
                    "exp_avg": torch.zeros_like(parameter),
                    "exp_avg_sq": torch.zeros_like(parameter),
                }


@dataclass(frozen=True)
class MainShard:
    """The fp32 elements of one model parameter that this rank's optimizer holds."""

    parameter: torch.nn.Parameter
    """The model parameter, of which ``main`` is the flat part ``start:stop``."""
    main: Tensor
    start: int
    stop: int


def main_shards(optimizer: MegatronOptimizer) -> Iterator[MainShard]:
    """Every element that this rank updates, once, in an order that is the same on all data-parallel ranks."""
    for part in parts(optimizer):
        if isinstance(part, DistributedOptimizer):
            for ranges in part.gbuf_ranges:
                for buckets in ranges.values():
                    for bucket in buckets:
                        for parameter, where in bucket["param_map"].items():
                            group, order = part.model_param_group_index_map[parameter]
                            main = part.optimizer.param_groups[group]["params"][order]
                            yield MainShard(parameter, main, where["param"].start, where["param"].end)
        else:
            yield from _whole_shards(part)


def _whole_shards(part: MegatronOptimizer) -> Iterator[MainShard]:
    if isinstance(part, Float16OptimizerWithFloat16Params):
        pairs = [
            *zip(part.float16_groups, part.fp32_from_float16_groups, strict=True),
            *((group, group) for group in part.fp32_from_fp32_groups),
        ]
        for models, mains in pairs:
            for parameter, main in zip(models, mains, strict=True):
                yield MainShard(parameter, main, 0, parameter.numel())
        return
    for group in part.optimizer.param_groups:
        for parameter in group["params"]:
            yield MainShard(parameter, parameter, 0, parameter.numel())
