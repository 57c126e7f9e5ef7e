"""Parameters and arithmetic of a Cosmos transformer, counted from its size alone."""

from __future__ import annotations

from dataclasses import dataclass

from nemo_cosmos.parallel.layout import NetworkShape


@dataclass(frozen=True)
class NetworkSize(NetworkShape):
    """The numbers of a network that its parameters, arithmetic and memory follow from."""

    hidden_size: int
    text_width: int
    adaln_lora_dim: int
    patch_features: int
    """Values of one patch that enter the network."""
    output_features: int
    """Values of one patch that leave it."""
    position: bool
    """Whether an absolute position embedding is added to the tokens at every layer."""
    position_parameters: int
    """Elements of its learnable tables, which every pipeline stage holds."""
    view_parameters: int = 0
    """Elements of the view table and what is added to it, on the first pipeline stage."""

    @property
    def layer_parameters(self) -> int:
        """Self attention 4·D², cross attention 2·D² + 2·text·D, MLP 8·D², modulations 12·D·r, gains."""
        d, r = self.hidden_size, self.adaln_lora_dim
        return 14 * d * d + 2 * self.text_width * d + 12 * d * r + 4 * self.head_dim

    @property
    def tensor_parallel_parameters(self) -> int:
        """The part of :attr:`layer_parameters` that tensor parallelism splits."""
        return 14 * self.hidden_size**2 + 2 * self.text_width * self.hidden_size

    @property
    def entry_parameters(self) -> int:
        """Patch embedding, views, time embedding and its norm: on the first pipeline stage."""
        patches = self.patch_features * self.hidden_size
        return patches + self.view_parameters + 4 * self.hidden_size**2 + self.hidden_size

    @property
    def exit_parameters(self) -> int:
        """Modulation and projection at the end: on the last pipeline stage."""
        d, r = self.hidden_size, self.adaln_lora_dim
        return 3 * d * r + d * self.output_features

    @property
    def parameters(self) -> int:
        return (
            self.num_layers * self.layer_parameters
            + self.entry_parameters
            + self.exit_parameters
            + self.position_parameters
        )

    @property
    def head_dim(self) -> int:
        return self.hidden_size // self.num_attention_heads


def layer_forward_flops(size: NetworkSize, tokens: int, text_tokens: int, num_views: int = 1) -> tuple[float, float]:
    """(matrix products, attention) of one layer for one sample, two operations a multiplication.

    Matrix products: 28·S·D² of the six projections and the MLP, 4·M·text·D of the text. Attention over S tokens and M
    tokens: 4·S·(S + M)·D, not causal. Of V views a token attends to its own M / V.
    """
    d = size.hidden_size
    matrices = 28.0 * tokens * d * d + 4.0 * text_tokens * size.text_width * d
    return matrices, 4.0 * tokens * (tokens + text_tokens / num_views) * d


def training_flops(size: NetworkSize, tokens: int, text_tokens: int = 512, num_views: int = 1) -> float:
    """Model FLOPs of forward and backward for one sample: three times the layers' forward pass.

    Recomputation, modulations, embeddings and element-wise work are not counted; this is the convention of the
    published figures for NeMo's diffusion transformers.
    """
    return 3 * size.num_layers * sum(layer_forward_flops(size, tokens, text_tokens, num_views))
