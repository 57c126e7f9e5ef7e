"""Self attention and cross attention of one layer.

Self attention is where tokens of different ranks meet. With context parallelism each rank exchanges its part of the
sequence for a part of the heads (all-to-all), or gathers keys and values when the heads do not divide (all-gather).
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from functools import cache
from typing import Literal

import torch
import torch.nn.functional as F
from megatron.core.transformer.module import MegatronModule
from megatron.core.transformer.spec_utils import ModuleSpec, build_module
from megatron.core.transformer.transformer_config import TransformerConfig
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from nemo_cosmos.errors import InputError
from nemo_cosmos.models.dit import flash4
from nemo_cosmos.models.dit.ops import rms_norm, split_heads_norm_rotate
from nemo_cosmos.parallel.context import SequenceSplit, gather_sequence, heads_to_sequence, sequence_to_heads
from nemo_cosmos.parallel.groups import ParallelGroups

logger = logging.getLogger(__name__)

ContextBackend = Literal["all_to_all", "all_gather"]

# cuDNN's fused attention is asked for first: on one H200 it runs at 616 TFLOP/s forward where flash runs at 355.
ATTENTION_BACKENDS = [
    SDPBackend.CUDNN_ATTENTION,
    SDPBackend.FLASH_ATTENTION,
    SDPBackend.EFFICIENT_ATTENTION,
    SDPBackend.MATH,
]
# cuDNN's backward pass adds in an order that timing decides; flash has a form that does not.
DETERMINISTIC_BACKENDS = [SDPBackend.FLASH_ATTENTION, SDPBackend.MATH]


@cache
def _announce(device: str, dtype: torch.dtype, deterministic: bool) -> None:
    fused = device == "cuda" and dtype in (torch.bfloat16, torch.float16)
    first = "PyTorch's choice of"
    if fused and deterministic:
        first = "deterministic flash"
    elif fused and torch.backends.cuda.cudnn_sdp_enabled():
        first = "cuDNN"
    logger.info("attention on %s in %s: %s scaled dot product attention", device, dtype, first)


def scaled_dot_product(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """softmax(q·kᵀ/√d)·v without mask; q (s, B, h, d), k and v (m, B, h, d) -> (s, B, h, d)."""
    batch_first = [x.transpose(0, 1) for x in (q, k, v)]
    if flash4.suits(*batch_first[:2]) and (long := flash4.kernel()) is not None:
        return long(*batch_first).transpose(0, 1)
    deterministic = torch.are_deterministic_algorithms_enabled()
    _announce(q.device.type, q.dtype, deterministic)
    q, k, v = (x.transpose(1, 2) for x in batch_first)
    if q.is_cuda:
        with sdpa_kernel(DETERMINISTIC_BACKENDS if deterministic else ATTENTION_BACKENDS, set_priority=True):
            out = F.scaled_dot_product_attention(q, k, v)
    else:
        out = F.scaled_dot_product_attention(q, k, v)
    return out.permute(2, 0, 1, 3)


def choose_context_backend(requested: str, heads: int, groups: ParallelGroups) -> ContextBackend:
    """``auto`` is all-to-all where the heads of a tensor rank divide by the context ranks, else all-gather."""
    divides = (heads // groups.tensor_size) % groups.context_size == 0
    if requested == "auto":
        chosen: ContextBackend = "all_to_all" if divides else "all_gather"
        if groups.context is not None and not divides:
            logger.info(
                "context parallelism gathers keys and values: %d heads / tensor %d do not divide by context %d",
                heads, groups.tensor_size, groups.context_size,
            )  # fmt: skip
        return chosen
    assert requested in ("all_to_all", "all_gather"), requested
    assert requested != "all_to_all" or divides, "checked when the layout is validated"
    return requested  # type: ignore[return-value]


class RMSNorm(nn.Module):
    """x / rms(x) · weight over the last dimension; the gain of queries and keys, shared by all heads."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        return rms_norm(x, self.weight)


class ContextParallelAttention(nn.Module):
    """Full attention over a sequence, or over each block of it, that may be split over the context group."""

    def __init__(self, config: TransformerConfig, groups: ParallelGroups, context_backend: str) -> None:
        super().__init__()
        self.groups = groups
        self.backend = choose_context_backend(context_backend, config.num_attention_heads, groups)

    def forward(self, q: Tensor, k: Tensor, v: Tensor, split: SequenceSplit) -> Tensor:
        """q, k, v (context tokens, B, h, d) of this rank -> the same shape; padding never serves as key."""
        group, total = self.groups.context, split.num_tokens
        if group is None:
            return self._attend(q, k, v, split)
        if self.backend == "all_to_all":
            q, k, v = (sequence_to_heads(x, group) for x in (q, k, v))
            return heads_to_sequence(self._attend(q, k, v, split), group)
        keys, values = gather_sequence(torch.stack((k, v), dim=1), group)[:total].unbind(1)
        if not split.blocks:
            return scaled_dot_product(q, keys, values)
        # Padding asks the last block, so that every rank takes part in the gradient of what was gathered.
        cuts = split.own_blocks()
        return torch.cat([scaled_dot_product(q[own], keys[block], values[block]) for own, block in cuts])

    @classmethod
    def _attend(cls, q: Tensor, k: Tensor, v: Tensor, split: SequenceSplit) -> Tensor:
        total = split.num_tokens
        if split.blocks:
            parts = zip(*(x[:total].split(split.blocks) for x in (q, k, v)), strict=True)
            return cls._pad(torch.cat([scaled_dot_product(*part) for part in parts]), q.shape[0])
        if q.shape[0] == total:
            # Cutting nothing off would still cost a copy of each gradient.
            return scaled_dot_product(q, k, v)
        return cls._pad(scaled_dot_product(q[:total], k[:total], v[:total]), q.shape[0])

    @staticmethod
    def _pad(x: Tensor, length: int) -> Tensor:
        missing = length - x.shape[0]
        return F.pad(x, (0, 0, 0, 0, 0, 0, 0, missing)) if missing else x


class TransformerEngineAttention(nn.Module):
    """Transformer Engine's attention, which exchanges keys and values around the context group by itself."""

    def __init__(self, config: TransformerConfig, groups: ParallelGroups, context_backend: str) -> None:
        super().__init__()
        from transformer_engine.pytorch import DotProductAttention

        self.attention = DotProductAttention(
            num_attention_heads=config.num_attention_heads,
            kv_channels=config.kv_channels,
            attention_dropout=0.0,
            qkv_format="sbhd",
            attn_mask_type="no_mask",
            tp_size=groups.tensor_size,
            tp_group=groups.tensor,
        )
        if groups.context is not None:
            ranks = torch.distributed.get_process_group_ranks(groups.context)
            self.attention.set_context_parallel_group(groups.context, ranks, torch.cuda.Stream())

    def forward(self, q: Tensor, k: Tensor, v: Tensor, split: SequenceSplit) -> Tensor:
        """q, k, v (context tokens, B, h, d) of this rank -> the same shape."""
        if split.blocks:
            raise InputError("parallel.context_backend=transformer_engine does not do data.packing; use auto")
        if split.padded_tokens != split.num_tokens:
            raise InputError(
                f"{split.num_tokens} tokens do not divide over the ranks, which parallel.context_backend="
                "transformer_engine cannot do; use auto"
            )
        return self.attention(q, k, v).view(q.shape)


@dataclass
class SelfAttentionSubmodules:
    linear_qkv: ModuleSpec | type
    core_attention: ModuleSpec | type
    linear_proj: ModuleSpec | type


@dataclass
class CrossAttentionSubmodules:
    linear_q: ModuleSpec | type
    linear_kv: ModuleSpec | type
    linear_proj: ModuleSpec | type


class SelfAttention(MegatronModule):
    """Joint attention over all tokens; rows of ``linear_qkv`` are ordered (head, q|k|v, channel).

    The layer calls ``project``, ``core_attention`` and ``linear_proj`` itself, because recomputation keeps the middle.
    """

    def __init__(
        self,
        config: TransformerConfig,
        submodules: SelfAttentionSubmodules,
        groups: ParallelGroups,
        context_backend: str,
    ) -> None:
        super().__init__(config)
        width, self.head_dim = config.hidden_size, config.kv_channels
        self.linear_qkv = build_module(submodules.linear_qkv, width, 3 * width, config=config)
        self.q_layernorm = RMSNorm(self.head_dim)
        self.k_layernorm = RMSNorm(self.head_dim)
        self.core_attention = build_module(submodules.core_attention, config, groups, context_backend)
        self.linear_proj = build_module(submodules.linear_proj, width, width, config=config)

    def project(self, x: Tensor, rotary: tuple[Tensor, ...]) -> tuple[Tensor, Tensor, Tensor]:
        """x (local tokens, B, D) -> q, k, v (context tokens, B, heads of this rank, d)."""
        qkv, _ = self.linear_qkv(x)
        qkv = qkv.unflatten(-1, (-1, 3, self.head_dim))
        return split_heads_norm_rotate(qkv, self.q_layernorm.weight, self.k_layernorm.weight, *rotary)


class CrossAttention(MegatronModule):
    """Attention of every token to the text; rows of ``linear_kv`` are ordered (head, k|v, channel).

    Text is never masked: a padded position has key zero and value zero and counts in the softmax's denominator, as in
    the released networks. A token attends to the text of its own view and, in a pack, of its own sample.
    """

    def __init__(self, config: TransformerConfig, submodules: CrossAttentionSubmodules, text_width: int) -> None:
        super().__init__(config)
        width, self.head_dim = config.hidden_size, config.kv_channels
        self.linear_q = build_module(submodules.linear_q, width, width, config=config)
        self.linear_kv = build_module(submodules.linear_kv, text_width, 2 * width, config=config)
        self.q_layernorm = RMSNorm(self.head_dim)
        self.k_layernorm = RMSNorm(self.head_dim)
        self.linear_proj = build_module(submodules.linear_proj, width, width, config=config)

    def forward(self, x: Tensor, text: Tensor, text_blocks: list[tuple[slice, slice]] | None) -> Tensor:
        """x (local tokens, B, D), text (M, B, text_width) -> (local tokens, B, D).

        ``text_blocks`` cuts this rank's context chunk of tokens, in their order, and the text for each part of it.
        """
        q = self.q_layernorm(self.linear_q(x)[0].unflatten(-1, (-1, self.head_dim)))
        k, v = self.linear_kv(text)[0].unflatten(-1, (-1, 2, self.head_dim)).unbind(3)
        k = self.k_layernorm(k)
        if text_blocks is None:
            out = scaled_dot_product(q, k, v.contiguous())
        else:
            cuts = [(tokens.stop - tokens.start, words) for tokens, words in text_blocks if tokens.stop > tokens.start]
            lengths = [length for length, _ in cuts]
            # Split, not sliced: the gradients of the parts are then joined once, not added as whole tensors of zeros.
            *own, _ = q.split([*lengths, q.shape[0] - sum(lengths)])
            parts = [
                scaled_dot_product(part, k[words], v[words].contiguous())
                for part, (_, words) in zip(own, cuts, strict=True)
            ]
            out = ContextParallelAttention._pad(torch.cat(parts) if parts else q[:0], q.shape[0])
        return self.linear_proj(out.flatten(2))[0]
