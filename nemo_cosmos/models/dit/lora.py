"""Low-rank adapters on the matrices of attention and MLP: y = W·x + alpha/rank · B·(A·x).

Adapters are named as diffusers names the layer they belong to, which is what PEFT files hold. Matrices that are fused
here (queries, keys, values) keep one adapter each.

Parallel layers. Where W is split by output rows, A is whole on every rank and B is split by rows; where W is split by
input columns, A is split by columns and B is whole. Only the ``rank`` numbers per token between A and B travel between
tensor ranks. With sequence parallelism the factor that is whole sees only the rank's own tokens; it is marked
``sequence_parallel``, and Megatron sums its gradient over the tensor group.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from megatron.core.tensor_parallel.layers import (
    ColumnParallelLinear,
    RowParallelLinear,
    set_tensor_model_parallel_attributes,
)
from megatron.core.tensor_parallel.mappings import (
    copy_to_tensor_model_parallel_region,
    gather_from_sequence_parallel_region,
    reduce_from_tensor_model_parallel_region,
    reduce_scatter_to_sequence_parallel_region,
)
from torch import Tensor, nn

from nemo_cosmos.models.dit.config import DiTConfig
from nemo_cosmos.models.dit.lora_spec import LoraSpec
from nemo_cosmos.models.dit.parameters import Parameter, parameters
from nemo_cosmos.models.dit.sharding import global_name
from nemo_cosmos.models.dit.stage import Stage

_MARK = ".adapters."


@dataclass(frozen=True)
class AdapterEntry:
    """One adapter of the whole network."""

    ours: str
    """Prefix of our two parameters: ``….lora_A`` (rank, in) and ``….lora_B`` (out, rank)."""
    diffusers: str
    """``transformer_blocks.3.attn1.to_q``."""
    original: str
    """Released name of the weight that it changes, without prefix."""
    shape: tuple[int, int]
    """(out, in) of that weight."""


def adapter_entries(config: DiTConfig, spec: LoraSpec) -> list[AdapterEntry]:
    """Every adapter of the whole network, in the order of the forward pass."""
    out = []
    for parameter in parameters(config):
        targets = parameter.lora_targets
        if targets is None:
            continue
        for target, diffusers, original in zip(targets, parameter.adapters, parameter.released, strict=True):
            if spec.covers(target):
                ours = f"{parameter.name.removesuffix('.weight')}{_MARK}{_module_key(target)}"
                out.append(AdapterEntry(ours, diffusers, original, (parameter.shape[0], parameter.shape[1])))
    return out


def whole_parameters(config: DiTConfig, spec: LoraSpec) -> list[Parameter]:
    """The parameters that are trained whole beside the adapters."""
    return [parameter for parameter in parameters(config) if spec.trains_whole(parameter.name)]


def is_adapter(name: str) -> bool:
    """Whether a parameter of a network belongs to an adapter."""
    return _MARK in name


class Adapter(nn.Module):
    """The two factors of one adapter, as this rank holds them."""

    def __init__(self, out_features: int, in_features: int, rank: int, like: Tensor) -> None:
        super().__init__()
        self.lora_A = nn.Parameter(like.new_empty(rank, in_features))
        self.lora_B = nn.Parameter(like.new_zeros(out_features, rank))


class MatrixAdapters(nn.ModuleDict):
    """The adapters of one matrix, or of the matrices fused in one."""

    def __init__(self, linear: nn.Module, parts: Sequence[str], heads: int, spec: LoraSpec) -> None:
        super().__init__()
        self.parts, self.scale, self.heads = tuple(parts), spec.scale, heads
        self.column, self.row = isinstance(linear, ColumnParallelLinear), isinstance(linear, RowParallelLinear)
        self.sequence_parallel: bool = getattr(linear, "sequence_parallel", False)
        self.group: Any = getattr(linear, "tp_group", None)
        weight: Tensor = linear.weight  # type: ignore[assignment]
        for part in parts:
            if spec.covers(part):
                adapter = Adapter(weight.shape[0] // len(parts), weight.shape[1], spec.rank, weight)
                self[_module_key(part)] = adapter
                self._mark(adapter)

    def _mark(self, adapter: Adapter) -> None:
        whole = []
        if self.column:
            whole = [adapter.lora_A]
            set_tensor_model_parallel_attributes(adapter.lora_B, True, 0, 1)
        elif self.row:
            whole = [adapter.lora_B]
            set_tensor_model_parallel_attributes(adapter.lora_A, True, 1, 1)
        for parameter in whole:
            parameter.sequence_parallel = self.sequence_parallel  # type: ignore[attr-defined]

    def forward(self, x: Tensor) -> Tensor:
        """What is added to the linear layer's output, in its shape and its split."""
        adapters: list[Adapter] = list(self.values())  # type: ignore[arg-type]
        h = F.linear(x, torch.cat([adapter.lora_A for adapter in adapters])) * self.scale
        if self.column:
            # Backward completes the gradient of h: summed over the ranks that hold the other rows of B.
            if self.sequence_parallel:
                h = gather_from_sequence_parallel_region(h, tensor_parallel_output_grad=True, group=self.group)
            else:
                h = copy_to_tensor_model_parallel_region(h, group=self.group)
        elif self.row:
            if self.sequence_parallel:
                h = reduce_scatter_to_sequence_parallel_region(h, group=self.group)
            else:
                h = reduce_from_tensor_model_parallel_region(h, group=self.group)
        pieces = h.chunk(len(adapters), dim=-1)
        added = {
            key: F.linear(piece, adapter.lora_B) for key, adapter, piece in zip(self, adapters, pieces, strict=True)
        }
        if len(self.parts) == 1:
            return next(iter(added.values()))
        nothing = torch.zeros_like(next(iter(added.values())))
        ordered = [added.get(_module_key(part), nothing).unflatten(-1, (self.heads, -1)) for part in self.parts]
        return torch.stack(ordered, dim=-2).flatten(-3)


def add_adapters(net: Stage, spec: LoraSpec, seed: int) -> None:
    """Freeze ``net`` and give it adapters, which alone are trained but for ``spec.also_train``.

    A is drawn from Kaiming's uniform distribution with a = √5, that is U(-1/√in, 1/√in), and B is zero, as in PEFT: at
    first the network computes what it did. The numbers depend on ``seed`` and the adapter's name alone, not on the
    layout.
    """
    assert net.lora is None, "the network has adapters already"
    heads = net.dit_config.num_attention_heads // net.groups.tensor_size
    targets = {one.name: one.lora_targets for one in parameters(net.dit_config) if one.lora_targets is not None}
    for name, parameter in list(net.named_parameters()):
        parameter.requires_grad_(spec.trains_whole(name))
        parts = targets.get(global_name(net, name), ())
        if any(spec.covers(part) for part in parts):
            linear = net.get_submodule(name.removesuffix(".weight"))
            linear.adapters = MatrixAdapters(linear, parts, heads, spec)
            linear.register_forward_hook(_add_output)
    net.lora = spec
    _initialise(net, spec, seed)


def adapter_parameters(net: Stage) -> Iterator[tuple[str, nn.Parameter]]:
    """(name in the whole network, parameter) of every adapter on this rank."""
    for name, parameter in net.named_parameters():
        if is_adapter(name):
            yield global_name(net, name), parameter


def _add_output(linear: nn.Module, args: tuple[Any, ...], output: tuple[Tensor, Any]) -> tuple[Tensor, Any]:
    return output[0] + linear.adapters(args[0]), output[1]  # type: ignore[operator]


@torch.no_grad()
def _initialise(net: Stage, spec: LoraSpec, seed: int) -> None:
    own = dict(adapter_parameters(net))
    for entry in adapter_entries(net.dit_config, spec):
        parameter = own.get(f"{entry.ours}.lora_A")
        if parameter is None or parameter.is_meta:
            continue
        digest = hashlib.sha256(f"{seed}/lora/{entry.diffusers}".encode()).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "little", signed=True))
        whole = nn.init.kaiming_uniform_(torch.empty(spec.rank, entry.shape[1]), a=math.sqrt(5), generator=generator)
        if getattr(parameter, "tensor_model_parallel", False):
            whole = whole.chunk(net.groups.tensor_size, dim=1)[net.groups.tensor_rank]
        parameter.copy_(whole)


def _module_key(part: str) -> str:
    # torch allows no dot in the name of a module.
    return part.replace(".", "_")
