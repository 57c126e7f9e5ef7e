"""Which part of the network a rank owns, how its gradients are completed, and how it is saved.

Gradients. Under tensor parallelism without sequence parallelism every rank computes the whole gradient of a
replicated parameter. With sequence parallelism it sees only its own tokens: such parameters are marked
``sequence_parallel`` and Megatron sums their gradients over the tensor group. The gains of queries and keys see only
the rank's own heads and are summed in either case, by their names. Over context ranks every gradient is a partial sum,
which data parallelism adds.

Pipeline. The learnable position tables exist on every stage, marked ``pipeline_parallel``: Megatron sums their
gradients over stages after data parallelism has reduced them. With the distributed optimizer each rank then owns a
slice of the reduced gradient, and a stage sums slices rightly only when they are cut alike on all stages; each table
is therefore marked ``shared_embedding``, which gives it a gradient bucket of its own. Copies beside the first are
marked ``shared``, so that the gradient norm counts a table once.
"""

from __future__ import annotations

from typing import Any

from megatron.core.transformer.transformer_block import get_num_layers_to_build
from megatron.core.transformer.transformer_config import TransformerConfig
from megatron.core.transformer.transformer_layer import get_transformer_layer_offset
from megatron.core.transformer.utils import ensure_metadata_has_dp_cp_group
from megatron.core.utils import make_sharded_tensor_for_checkpoint, make_tp_sharded_tensor_for_checkpoint
from torch import nn

from nemo_cosmos.models.dit.stage import Stage
from nemo_cosmos.parallel.groups import ParallelGroups


def stage_layers(config: TransformerConfig, groups: ParallelGroups, vp_stage: int | None) -> range:
    """Global numbers of the layers that this pipeline stage (and virtual stage) holds."""
    if groups.pipeline is None:
        return range(config.num_layers)
    rank = groups.pipeline_rank
    start = get_transformer_layer_offset(config, vp_stage, rank)
    return range(start, start + get_num_layers_to_build(config, vp_stage, rank))


def stage_copy(net: Stage) -> int:
    """0 on the first pipeline stage, a different positive number on every other (virtual) one."""
    return (net.vp_stage or 0) * net.groups.pipeline_size + net.groups.pipeline_rank


def mark_replicated_parameters(net: Stage) -> None:
    """Set the attributes by which Megatron completes gradients; see the module's docstring."""
    if net.groups.splits_sequence_over_tensor:
        for parameter in net.parameters():
            if not getattr(parameter, "tensor_model_parallel", False):
                parameter.sequence_parallel = True
    if net.groups.pipeline is not None and net.position is not None:
        for parameter in net.position.parameters():
            parameter.pipeline_parallel = True  # type: ignore[attr-defined]
            parameter.shared_embedding = True  # type: ignore[attr-defined]
            parameter.shared = stage_copy(net) > 0  # type: ignore[attr-defined]


def global_name(net: Stage, name: str) -> str:
    """``layers.<number on this stage>.…`` -> ``layers.<number in the network>.…``."""
    if not name.startswith("layers."):
        return name
    _, number, rest = name.split(".", 2)
    return f"layers.{net.layer_numbers[int(number)]}.{rest}"


def sharded_state_dict_by_layer(net: Stage, prefix: str, metadata: dict[str, Any] | None) -> dict[str, Any]:
    """{local key: ShardedTensor}; a sharded tensor is named by the layer's number in the whole network."""
    groups = {"tp_group": net.groups.tensor, "dp_cp_group": ensure_metadata_has_dp_cp_group(metadata)["dp_cp_group"]}
    replicated: set[nn.Parameter] = set(net.position.parameters()) if net.position is not None else set()
    out = {}
    for name, parameter in net.named_parameters():
        key = prefix + global_name(net, name)
        if getattr(parameter, "tensor_model_parallel", False):
            entry = make_tp_sharded_tensor_for_checkpoint(parameter, key, parameter.partition_dim, **groups)
        else:
            entry = make_sharded_tensor_for_checkpoint(parameter, key, **groups)
        if parameter in replicated:
            entry.replica_id = (stage_copy(net), *entry.replica_id[1:])
        out[prefix + name] = entry
    return out
