"""The table of a network's parameters: names here and elsewhere, shapes, initial values, axes and adapters.

Loading, export, diffusers' folders, adapters, initial weights and tensor shards are all read from it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from nemo_cosmos.models.dit.config import DiTConfig
from nemo_cosmos.models.dit.families import DIFFUSERS, FAMILIES, LORA_TARGETS, Family, Initial


@dataclass(frozen=True)
class Parameter:
    """One parameter of ours and the released tensors that it is made of.

    Several released matrices (D_out, D_in) are interleaved by head: rows ordered (head, matrix, channel).
    """

    name: str
    """In the whole network: ``layers.3.mlp.linear_fc1.weight``."""
    released: tuple[str, ...]
    """Names in released files, without ``net.``, in the order in which they are interleaved."""
    diffusers: tuple[str, ...] | None
    """Names in diffusers' class, one for each released tensor; None where it has no such parameter."""
    shape: tuple[int, ...]
    """Of each released tensor."""
    initial: Initial
    tensor_axis: int | None
    """Axis of our parameter that tensor parallelism splits; None where every rank has the whole."""
    lora_targets: tuple[str, ...] | None
    """What PEFT calls the matrices within their layer, one for each released tensor; None: no adapters there."""
    heads: int = 1

    @property
    def adapters(self) -> tuple[str, ...]:
        """Names of the adapters in PEFT's files, one for each released tensor: ``transformer_blocks.3.attn1.to_q``."""
        assert self.lora_targets is not None and self.diffusers is not None, f"{self.name} has no adapters"
        return tuple(name.removesuffix(".weight") for name in self.diffusers)

    def fuse(self, tensors: list[Tensor]) -> Tensor:
        """Released tensors -> our parameter."""
        if len(tensors) == 1:
            return tensors[0]
        parts = [tensor.unflatten(0, (self.heads, -1)) for tensor in tensors]
        return torch.stack(parts, dim=1).flatten(0, 2)

    def separate(self, tensor: Tensor) -> list[Tensor]:
        """Inverse of :meth:`fuse`."""
        if len(self.released) == 1:
            return [tensor]
        parts = tensor.unflatten(0, (self.heads, len(self.released), -1))
        return [part.flatten(0, 1).contiguous() for part in parts.unbind(1)]

    def shard(self, tensor: Tensor, size: int, rank: int) -> Tensor:
        """The part of our whole parameter that one of ``size`` tensor ranks holds."""
        return tensor if self.tensor_axis is None else tensor.chunk(size, dim=self.tensor_axis)[rank]


@dataclass(frozen=True)
class _Row:
    """What a parameter is whatever it is called; ``{i}`` in its name is the layer."""

    name: str
    shape: tuple[int, ...]
    initial: Initial
    tensor_axis: int | None = None


@cache
def parameters(config: DiTConfig) -> tuple[Parameter, ...]:
    """Every parameter of the whole network, in the order of the forward pass."""
    family = FAMILIES[config.family]
    layer = list(_layer(config, family))
    rows = [
        *((row, 0) for row in _entrance(config, family)),
        *((row, i) for i in range(config.num_layers) for row in layer),
        *((row, 0) for row in _exit(config, family)),
    ]
    return tuple(_named(row, i, family, config.num_attention_heads) for row, i in rows)


def _named(row: _Row, i: int, family: Family, heads: int) -> Parameter:
    diffusers = DIFFUSERS.get(row.name)
    return Parameter(
        name=row.name.format(i=i),
        released=tuple(name.format(i=i) for name in family.released[row.name]),
        diffusers=None if diffusers is None else tuple(name.format(i=i) for name in diffusers),
        shape=row.shape,
        initial=row.initial,
        tensor_axis=row.tensor_axis,
        lora_targets=LORA_TARGETS.get(row.name),
        heads=heads,
    )


def _entrance(config: DiTConfig, family: Family) -> Iterator[_Row]:
    width, matrices, time = config.hidden_size, family.initial.matrices, family.initial.time
    yield _Row("patch_embedding.weight", (width, config.patch_features), matrices)
    if config.position_embedding == "learnable":
        for axis, length in zip("thw", config.position_lengths, strict=True):
            yield _Row(f"position.{axis}", (length, width), "small_normal")
    if config.multiview:
        yield _Row("view_embedding.weight", (config.num_views, config.view_channels), "normal")
        if config.frame_repeat:
            yield _Row("view_embedding.frame_repeat.weight", (config.view_channels, 1), matrices)
            yield _Row("view_embedding.frame_repeat.bias", (config.view_channels,), "zeros")
    yield _Row("time_embedding.linear_1.weight", (width, width), time)
    yield _Row("time_embedding.linear_2.weight", (3 * width, width), time)
    yield _Row("time_embedding.norm_weight", (width,), "ones")


def _layer(config: DiTConfig, family: Family) -> Iterator[_Row]:
    width, rank, matrices = config.hidden_size, config.adaln_lora_dim, family.initial.matrices
    at = "layers.{i}."
    yield _Row(f"{at}self_attention.linear_qkv.weight", (width, width), matrices, tensor_axis=0)
    yield _Row(f"{at}cross_attention.linear_q.weight", (width, width), matrices, tensor_axis=0)
    yield _Row(f"{at}cross_attention.linear_kv.weight", (width, config.text_width), matrices, tensor_axis=0)
    for part in ("self_attention", "cross_attention"):
        yield _Row(f"{at}{part}.q_layernorm.weight", (config.head_dim,), "ones")
        yield _Row(f"{at}{part}.k_layernorm.weight", (config.head_dim,), "ones")
        yield _Row(f"{at}{part}.linear_proj.weight", (width, width), matrices, tensor_axis=1)
    yield _Row(f"{at}mlp.linear_fc1.weight", (config.mlp_size, width), matrices, tensor_axis=0)
    yield _Row(f"{at}mlp.linear_fc2.weight", (width, config.mlp_size), matrices, tensor_axis=1)
    for part in ("self_attention", "cross_attention", "mlp"):
        yield _Row(f"{at}modulation_{part}.linear_1.weight", (rank, width), matrices)
        yield _Row(f"{at}modulation_{part}.linear_2.weight", (3 * width, rank), "zeros")


def _exit(config: DiTConfig, family: Family) -> Iterator[_Row]:
    width, rank, initial = config.hidden_size, config.adaln_lora_dim, family.initial
    yield _Row("final_layer.modulation.linear_1.weight", (rank, width), initial.matrices)
    yield _Row("final_layer.modulation.linear_2.weight", (2 * width, rank), initial.final_modulation)
    yield _Row("final_layer.linear.weight", (config.patch_size**2 * config.out_channels, width), initial.matrices)
