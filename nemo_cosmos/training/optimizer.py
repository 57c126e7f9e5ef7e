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
from megatron.core.optimizer.optimizer_config import ParamKey, ParamPredicate
from megatron.core.optimizer_param_scheduler import ParamGroupOverride
from nemo.core.optim import McoreDistributedOptimizer
from nemo.lightning.megatron_parallel import MegatronParallel
from nemo.lightning.pytorch.optim import MegatronOptimizerModule
from torch import Tensor

from nemo_cosmos.config import OptimizerConfig
from nemo_cosmos.training.bad_steps import BadSteps


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
    """The same settings for all parameters; fp32 main parameters and moments."""
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


def group_by_dtype(config: MegatronOptimizerConfig) -> dict[ParamKey, ParamGroupOverride]:
    """Overrides that change no setting, but give fp32 parameters of a network in bf16 a group of their own.

    In a group of both dtypes the distributed optimizer (megatron-core 0.16.1) puts the shards of fp32 parameters
    first, while its map from parameters to places in the group keeps the order of the network.
    """
    if config.params_dtype == torch.float32:
        return {}
    fp32 = ParamPredicate(name="fp32", fn=lambda parameter: parameter.dtype == torch.float32)
    return {ParamKey(predicate=fp32): ParamGroupOverride(wd_mult=1.0)}


class CosmosOptimizer(McoreDistributedOptimizer):
    """NeMo's wrapper that also keeps the gradient norm of the last step."""

    grad_norm: float = 0.0

    def __init__(self, optimizer: MegatronOptimizer, bad_steps: BadSteps) -> None:
        super().__init__(optimizer)
        self.bad_steps = bad_steps

    def step(self, closure: Any = None) -> Any:
        """Compute the step, and take it unless its loss or gradients are not finite."""
        loss = closure() if closure is not None else None
        if self.bad_steps.current:
            self.grad_norm = float("nan")
            return loss, None, None
        _, grad_norm, zeros = super().step()
        self.grad_norm = float(grad_norm) if grad_norm is not None else 0.0
        return loss, grad_norm, zeros

    def state_dict(self) -> dict[str, Any]:
        """Nothing: a save takes the state in parts (``nemo_cosmos.training.state``)."""
        return {}


class CosmosOptimizerModule(MegatronOptimizerModule):
    """Builds the optimizer for NeMo.

    NeMo 2.7.3 passes arguments that Megatron-Core 0.16 no longer takes, so the optimizer is made here. Weight decay
    applies to every parameter, as in the Cosmos recipes.
    """

    def __init__(self, config: OptimizerConfig, *, dtype: torch.dtype, distributed: bool) -> None:
        super().__init__(megatron_optimizer_config(config, dtype=dtype, distributed=distributed))
        self.recipe = config
        self.bad_steps = BadSteps()

    def optimizers(self, model: MegatronParallel) -> list[CosmosOptimizer]:
        chunks = [chunk.module for chunk in model]
        optimizer = get_megatron_optimizer(self.config, chunks, config_overrides=group_by_dtype(self.config))
        initialise_state(optimizer)
        return [CosmosOptimizer(optimizer, self.bad_steps)]

    def finalize_model_grads(self, model: list[Any], *args: Any, **kwargs: Any) -> None:
        """Megatron's reductions, then a look at what came of them."""
        super().finalize_model_grads(model, *args, **kwargs)
        self.bad_steps.examine(model)

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
        for group in inner.param_groups:
            for parameter in group["params"]:
                inner.state[parameter] = {
                    "step": torch.tensor(0.0),
                    "exp_avg": torch.zeros_like(parameter),
                    "exp_avg_sq": torch.zeros_like(parameter),
                }


def adam_state(optimizer: MegatronOptimizer, main: Tensor) -> dict[str, Any]:
    """Adam's state of one main parameter."""
    return next(part.optimizer.state[main] for part in parts(optimizer) if main in part.optimizer.state)


def adam_steps(optimizer: MegatronOptimizer) -> int:
    """How many steps Adam's moments have taken; the same for all parameters of all ranks."""
    for part in parts(optimizer):
        # Transformer Engine's Adam counts in its groups, torch's in the state of each parameter.
        for counter in (*part.optimizer.param_groups, *part.optimizer.state.values()):
            if "step" in counter:
                return int(counter["step"])
    return 0


def set_adam_steps(optimizer: MegatronOptimizer, steps: int) -> None:
    """Continue the bias correction of restored moments."""
    for part in parts(optimizer):
        for state in part.optimizer.state.values():
            state["step"].fill_(steps)
        for group in part.optimizer.param_groups:
            if "step" in group:
                group["step"] = steps


def is_split(optimizer: MegatronOptimizer) -> bool:
    """Whether each data-parallel rank updates a part of every parameter."""
    return any(isinstance(part, DistributedOptimizer) for part in parts(optimizer))


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
