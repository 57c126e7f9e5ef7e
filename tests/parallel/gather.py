"""Whole tensors in the original layout from a network that is split over processes."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import torch
from megatron.core import parallel_state
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from nemo_cosmos.models.dit import CosmosDiT
from nemo_cosmos.models.dit.lora import is_adapter
from nemo_cosmos.models.dit.sharding import global_name, stage_copy
from nemo_cosmos.models.dit.state_dict import to_original


def gather_original(
    chunks: list[CosmosDiT], values: Callable[[list[nn.Parameter]], list[Tensor]], scratch: Path
) -> dict[str, Tensor] | None:
    """The state dict with released names on global rank 0, None elsewhere; see :func:`gather_parameters`."""
    mine = gather_parameters(chunks, values, scratch, select=lambda name: not is_adapter(name))
    return None if mine is None else to_original(chunks[0].dit_config, mine, chunks[0].original_extras)


def gather_parameters(
    chunks: list[CosmosDiT],
    values: Callable[[list[nn.Parameter]], list[Tensor]],
    scratch: Path,
    *,
    select: Callable[[str], bool],
) -> dict[str, Tensor] | None:
    """{name in the whole network: whole tensor} on global rank 0, None elsewhere; collective over all ranks.

    Args:
        chunks: this rank's (virtual) pipeline stages.
        values: what stands for given parameters, in their tensor-parallel shapes: the parameters themselves or their
            averages. Called alike on all ranks of a stage.
        scratch: a folder that all ranks see; later pipeline stages leave their tensors there for rank 0.
        select: which parameters, by name.
    """
    groups = chunks[0].groups
    mine: dict[str, Tensor] = {}
    for net in chunks:
        named = [
            (global_name(net, name), parameter)
            for name, parameter in net.named_parameters()
            if select(name) and not (getattr(parameter, "pipeline_parallel", False) and stage_copy(net) > 0)
        ]
        for (name, parameter), value in zip(named, values([p for _, p in named]), strict=True):
            mine[name] = _join_tensor_shards(net, parameter, value)
    speaks = (
        groups.tensor_rank == 0
        and parallel_state.get_data_parallel_rank(with_context_parallel=True) == 0
        and groups.pipeline_rank > 0
    )
    if groups.pipeline_size > 1:
        if speaks:
            scratch.mkdir(parents=True, exist_ok=True)
            save_file({k: v.contiguous() for k, v in mine.items()}, scratch / f"stage_{groups.pipeline_rank}")
        torch.distributed.barrier()
    is_first = torch.distributed.get_rank() == 0
    if is_first:
        for stage in range(1, groups.pipeline_size):
            mine.update(load_file(scratch / f"stage_{stage}"))
        shutil.rmtree(scratch, ignore_errors=True)
    if groups.pipeline_size > 1:
        torch.distributed.barrier()
    return mine if is_first else None


def _join_tensor_shards(net: CosmosDiT, parameter: nn.Parameter, value: Tensor) -> Tensor:
    value = value.detach()
    if not getattr(parameter, "tensor_model_parallel", False) or net.groups.tensor is None:
        return value.cpu()
    local = value.to(parameter.device).contiguous()
    shards = [torch.empty_like(local) for _ in range(net.groups.tensor_size)]
    torch.distributed.all_gather(shards, local, group=net.groups.tensor)
    return torch.cat(shards, dim=parameter.partition_dim).cpu()  # type: ignore[attr-defined]
