"""Which modules a layer is built from."""

from __future__ import annotations

from megatron.core.transformer.spec_utils import ModuleSpec

from nemo_cosmos.models.dit.attention import (
    ContextParallelAttention,
    CrossAttention,
    CrossAttentionSubmodules,
    SelfAttention,
    SelfAttentionSubmodules,
    TransformerEngineAttention,
)
from nemo_cosmos.models.dit.layer import MLP, CosmosLayer, LayerSubmodules, MLPSubmodules
from nemo_cosmos.models.dit.linear import ColumnLinear, LocalLinear, ReplicatedInputColumnLinear, RowLinear


def layer_spec(*, parallel: bool, transformer_engine: bool = False) -> ModuleSpec:
    """The layer with Megatron's tensor-parallel linears, or with plain ones where tensors are not split."""
    core_attention = TransformerEngineAttention if transformer_engine else ContextParallelAttention
    column, text_column, row = (
        (ColumnLinear, ReplicatedInputColumnLinear, RowLinear) if parallel else (LocalLinear,) * 3
    )
    return ModuleSpec(
        module=CosmosLayer,
        submodules=LayerSubmodules(
            self_attention=ModuleSpec(
                module=SelfAttention,
                submodules=SelfAttentionSubmodules(linear_qkv=column, core_attention=core_attention, linear_proj=row),
            ),
            cross_attention=ModuleSpec(
                module=CrossAttention,
                submodules=CrossAttentionSubmodules(linear_q=column, linear_kv=text_column, linear_proj=row),
            ),
            mlp=ModuleSpec(module=MLP, submodules=MLPSubmodules(linear_fc1=column, linear_fc2=row)),
        ),
    )
