"""The matrices that tensor parallelism splits, behind one interface: ``module(x) -> (y, None)``.

Where tensors are split they are Megatron-Core's column- and row-parallel linears; in a bare process, without
``torch.distributed``, they are plain ones. Weights are not initialised here: they come from ``load_original`` or from
:class:`~nemo_cosmos.models.dit.init.InitialWeights`, which do not depend on the layout.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from megatron.core.tensor_parallel.layers import (
    ColumnParallelLinear,
    RowParallelLinear,
    set_tensor_model_parallel_attributes,
)
from megatron.core.transformer.transformer_config import TransformerConfig
from torch import Tensor, nn


class LocalLinear(nn.Linear):
    """A linear map without bias in one process."""

    def __init__(self, in_features: int, out_features: int, *, config: TransformerConfig) -> None:
        nn.Module.__init__(self)
        self.in_features, self.out_features = in_features, out_features
        self.weight = nn.Parameter(torch.empty(out_features, in_features, dtype=config.params_dtype))
        self.register_parameter("bias", None)

    def forward(self, x: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        return F.linear(x, self.weight), None


class ColumnLinear(ColumnParallelLinear):
    """Output rows split over the tensor group."""

    def __init__(self, in_features: int, out_features: int, *, config: TransformerConfig) -> None:
        super().__init__(in_features, out_features, config=config, init_method=_no_init, bias=False)
        set_tensor_model_parallel_attributes(self.weight, True, 0, 1)


class ReplicatedInputColumnLinear(ColumnLinear):
    """Output rows split over the tensor group, input whole on every rank even with sequence parallelism."""

    def __init__(self, in_features: int, out_features: int, *, config: TransformerConfig) -> None:
        super().__init__(in_features, out_features, config=replace_sequence_parallel(config))


class RowLinear(RowParallelLinear):
    """Input columns split over the tensor group, outputs summed (scattered with sequence parallelism)."""

    def __init__(self, in_features: int, out_features: int, *, config: TransformerConfig) -> None:
        super().__init__(
            in_features, out_features, config=config, init_method=_no_init, bias=False,
            input_is_parallel=True, skip_bias_add=False,
        )  # fmt: skip
        set_tensor_model_parallel_attributes(self.weight, True, 1, 1)


def replace_sequence_parallel(config: TransformerConfig) -> TransformerConfig:
    """A copy of ``config`` without sequence parallelism."""
    return replace(config, sequence_parallel=False) if config.sequence_parallel else config


def _no_init(weight: Tensor) -> Any:
    return weight
