"""One transformer layer: self attention, cross attention and MLP, each modulated by the noise level."""

from __future__ import annotations

from dataclasses import dataclass

from megatron.core.transformer.module import MegatronModule
from megatron.core.transformer.spec_utils import ModuleSpec, build_module
from megatron.core.transformer.transformer_config import TransformerConfig
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from nemo_cosmos.models.dit.attention import CrossAttention, SelfAttention
from nemo_cosmos.models.dit.ops import (
    add_position_modulated_norm,
    gated_add,
    gated_add_modulated_norm,
    gelu,
    modulated_norm,
)
from nemo_cosmos.parallel.context import SequenceSplit
from nemo_cosmos.parallel.groups import ParallelGroups


@dataclass
class Conditioning:
    """What every layer needs beside the tokens; F is 1, or the number of times: latent frames, packed samples."""

    embedding: Tensor
    """SiLU of the time embedding, (F, B, D)."""
    shared: Tensor
    """The modulation that all sub-layers share, (F, B, 3D)."""
    times: Tensor | slice | None
    """Where time differs between tokens, the rows of ``embedding`` that belong to this rank's: of each token (local
    tokens,), or those that have equally many tokens each, which costs less memory."""
    text: Tensor
    """(M, B, text width)."""
    rotary: tuple[Tensor, ...]
    """cos and sin of this context rank's tokens."""
    position: Tensor | None
    """Absolute embedding of the local tokens (local tokens, 1, D)."""
    split: SequenceSplit
    text_blocks: list[tuple[slice, slice]] | None = None
    """This context rank's tokens, and the rows of text that they attend to, by view and packed sample."""


class Modulation(nn.Module):
    """Low-rank map from the time embedding to ``parts`` vectors, plus the shared modulation."""

    def __init__(self, width: int, rank: int, parts: int) -> None:
        super().__init__()
        self.parts = parts
        self.linear_1 = nn.Linear(width, rank, bias=False)
        self.linear_2 = nn.Linear(rank, parts * width, bias=False)

    def forward(self, c: Conditioning) -> tuple[Tensor, ...]:
        """``parts`` tensors, shift, scale and, for a sub-layer, gate: (1 or local tokens, B, D), or (times, 1, B, D)
        for tokens that are as many for each time."""
        out = self.linear_2(self.linear_1(c.embedding))
        out = out + c.shared[..., : out.shape[-1]]
        if isinstance(c.times, slice):
            out = out[c.times].unsqueeze(1)
        elif c.times is not None:
            out = out[c.times]
        return out.chunk(self.parts, dim=-1)


@dataclass
class MLPSubmodules:
    linear_fc1: ModuleSpec | type
    linear_fc2: ModuleSpec | type


class MLP(MegatronModule):
    """Two matrices with the exact GELU between them."""

    def __init__(self, config: TransformerConfig, submodules: MLPSubmodules) -> None:
        super().__init__(config)
        self.linear_fc1 = build_module(
            submodules.linear_fc1, config.hidden_size, config.ffn_hidden_size, config=config
        )
        self.linear_fc2 = build_module(
            submodules.linear_fc2, config.ffn_hidden_size, config.hidden_size, config=config
        )

    def forward(self, x: Tensor) -> Tensor:
        """(local tokens, B, D) -> the same shape."""
        return self.linear_fc2(gelu(self.linear_fc1(x)[0]))[0]


@dataclass
class LayerSubmodules:
    self_attention: ModuleSpec
    cross_attention: ModuleSpec
    mlp: ModuleSpec


class CosmosLayer(MegatronModule):
    """x ← x + position; then for each sub-layer x ← x + gate · sub(LayerNorm(x)·(1 + scale) + shift).

    ``recompute`` is ``none``; ``selective``: only the core attention's tensors and the residual stream are kept, the
    projections around them and the MLP run again in the backward pass; or ``full``: only the input is kept.
    """

    def __init__(
        self,
        config: TransformerConfig,
        submodules: LayerSubmodules,
        *,
        groups: ParallelGroups,
        context_backend: str,
        text_width: int,
        adaln_lora_dim: int,
        recompute: str = "none",
    ) -> None:
        super().__init__(config)
        self.recompute = recompute
        self.self_attention: SelfAttention = build_module(
            submodules.self_attention, config=config, groups=groups, context_backend=context_backend
        )
        self.cross_attention: CrossAttention = build_module(
            submodules.cross_attention, config=config, text_width=text_width
        )
        self.mlp: MLP = build_module(submodules.mlp, config=config)
        width = config.hidden_size
        self.modulation_self_attention = Modulation(width, adaln_lora_dim, 3)
        self.modulation_cross_attention = Modulation(width, adaln_lora_dim, 3)
        self.modulation_mlp = Modulation(width, adaln_lora_dim, 3)

    def forward(self, x: Tensor, c: Conditioning) -> Tensor:
        """x (local tokens, B, D) -> the same shape."""
        if not self.training or self.recompute == "none":
            return self._forward(x, c)
        if self.recompute == "selective":
            return self._forward_selective(x, c)
        return checkpoint(self._forward, x, c, use_reentrant=False, preserve_rng_state=False)

    def _forward(self, x: Tensor, c: Conditioning) -> Tensor:
        x, gate, q, k, v = self._before_attention(x, c)
        return self._after_attention(x, gate, self.self_attention.core_attention(q, k, v, c.split), c)

    def _forward_selective(self, x: Tensor, c: Conditioning) -> Tensor:
        # Without dropout nothing is random in a layer, so the generators' states need not be kept.
        x, gate, q, k, v = checkpoint(self._before_attention, x, c, use_reentrant=False, preserve_rng_state=False)
        out = self.self_attention.core_attention(q, k, v, c.split)
        return checkpoint(self._after_attention, x, gate, out, c, use_reentrant=False, preserve_rng_state=False)

    def _before_attention(self, x: Tensor, c: Conditioning) -> tuple[Tensor, ...]:
        shift, scale, gate = self.modulation_self_attention(c)
        if c.position is None:
            u = modulated_norm(x, shift, scale)
        else:
            x, u = add_position_modulated_norm(x, c.position, shift, scale)
        return x, gate, *self.self_attention.project(u, c.rotary)

    def _after_attention(self, x: Tensor, gate: Tensor, out: Tensor, c: Conditioning) -> Tensor:
        out, _ = self.self_attention.linear_proj(out.flatten(2))
        shift, scale, next_gate = self.modulation_cross_attention(c)
        x, u = gated_add_modulated_norm(x, gate, out, shift, scale)
        out, gate = self.cross_attention(u, c.text, c.text_blocks), next_gate
        shift, scale, next_gate = self.modulation_mlp(c)
        x, u = gated_add_modulated_norm(x, gate, out, shift, scale)
        return gated_add(x, next_gate, self.mlp(u))
