"""Optimizer, learning-rate schedule and moving average of tokenizer training."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from nemo_cosmos.errors import InputError
from nemo_cosmos.training.tokenizer.config import TokenizerOptimizerConfig


def make_optimizer(module: nn.Module, config: TokenizerOptimizerConfig, device: torch.device) -> torch.optim.AdamW:
    """AdamW over all parameters, fused on CUDA."""
    return torch.optim.AdamW(
        module.parameters(),
        lr=config.lr,
        betas=(config.beta1, config.beta2),
        eps=config.eps,
        weight_decay=config.weight_decay,
        fused=device.type == "cuda",
    )


def restore_optimizer(optimizer: torch.optim.Optimizer, saved: Mapping[str, Any]) -> None:
    """Take moments and step counts from a save; settings and kernels stay those that the optimizer was made with.

    Raises:
        InputError: the state is of other parameters, or no optimizer's.
    """
    own = optimizer.state_dict()["param_groups"]
    try:
        groups = [{**mine, "params": given["params"]} for mine, given in zip(own, saved["param_groups"], strict=True)]
        optimizer.load_state_dict({"state": saved["state"], "param_groups": groups})
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"its optimizer state is of another network or program ({error})") from error
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            for name, value in optimizer.state.get(parameter, {}).items():
                if name != "step" and value.shape != parameter.shape:
                    raise InputError(f"its optimizer state is of another network ({name} {tuple(value.shape)})")


def lr_multiplier(config: TokenizerOptimizerConfig, step: int) -> float:
    """Factor on lr for the optimizer step ``step`` (0-based): linear warm-up, then 1 or a cosine to min_ratio."""
    if step < config.warmup_steps:
        return (step + 1) / config.warmup_steps
    if config.schedule == "warmup":
        return 1.0
    span = max(config.decay_steps - config.warmup_steps, 1)
    progress = min((step - config.warmup_steps) / span, 1.0)
    return config.min_ratio + (1.0 - config.min_ratio) * 0.5 * (1.0 + math.cos(math.pi * progress))


class Ema:
    """fp32 exponential moving average of a module's parameters with a constant rate."""

    def __init__(self, module: nn.Module, decay: float) -> None:
        if not 0.0 <= decay < 1.0:
            raise InputError(f"ema.decay={decay}: expected 0 <= decay < 1")
        self.decay = decay
        self.shadow: dict[str, Tensor] = {
            name: value.detach().float().clone() for name, value in module.named_parameters()
        }

    @torch.no_grad()
    def update(self, module: nn.Module) -> None:
        current = dict(module.named_parameters())
        names = list(self.shadow)
        torch._foreach_lerp_(
            [self.shadow[name] for name in names], [current[name].detach().float() for name in names], 1.0 - self.decay
        )

    @torch.no_grad()
    def copy_to(self, module: nn.Module) -> None:
        for name, value in module.named_parameters():
            value.copy_(self.shadow[name])

    def load(self, values: Mapping[str, Tensor]) -> None:
        """Take averaged parameters from a checkpoint; InputError when names differ."""
        if set(values) != set(self.shadow):
            difference = sorted(set(values) ^ set(self.shadow))
            raise InputError(
                f"the checkpoint's moving average is of another network (first difference {difference[0]})"
            )
        for name, value in values.items():
            self.shadow[name].copy_(value)
