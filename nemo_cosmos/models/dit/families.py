"""Families of networks: one entry says all in which a family differs from the others beside the sizes of its presets.

A family is chosen by :attr:`DiTConfig.family`; no other code asks for it by name. Columns of names have our name of a
parameter as their key, ``{i}`` standing for the number of the layer, so that
:func:`~nemo_cosmos.models.dit.parameters.parameters` can put them beside shapes and axes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch

Names = Mapping[str, tuple[str, ...]]
"""Our name of a parameter -> names elsewhere; several where matrices are interleaved in ours, in that order."""

Initial = Literal["ones", "zeros", "normal", "small_normal", "xavier_uniform", "truncated_normal"]
"""How a tensor is drawn; the rules are in ``init.py``."""


@dataclass(frozen=True)
class InitialRules:
    """Where families draw initial weights in different ways."""

    matrices: Initial
    time: Initial
    """The two matrices of the time embedding."""
    final_modulation: Initial
    """The second matrix of the final layer's modulation."""


@dataclass(frozen=True)
class ReleasedBuffers:
    """What released files hold beside parameters: tables of the rotary embedding, and counters."""

    tables: tuple[str, ...]
    """Of ``seq``, ``dim_spatial_range`` and ``dim_temporal_range``."""
    views_prefix: str | None = None
    """Before the tables of a multiview network, once for each number of views ``{n}``; None: as with one view."""
    counters: tuple[tuple[str, torch.dtype], ...] = ()
    prefix: str = "pos_embedder."


@dataclass(frozen=True)
class DiffusersForm:
    """How diffusers holds the networks of a family."""

    settings: Mapping[str, Any]
    """Of ``CosmosTransformer3DModel``: alike in all networks of the family, and unlike those of other families."""
    network: Mapping[str, Any]
    """Fields of :class:`DiTConfig` that these settings stand for; networks with others have no place there."""
    pipelines: Mapping[bool, str]
    """Class of the pipeline, by whether the network takes given frames."""
    scheduler: str
    """Class of the sampler in a pipeline."""
    scheduler_settings: Mapping[str, Any]
    vae: str
    """Class of the video tokenizer in a pipeline."""


@dataclass(frozen=True)
class Family:
    """Everything in which a family differs from the others."""

    objective: Literal["edm", "rectified_flow"]
    """What networks are trained and sampled with, by its name in ``diffusion/objectives``."""
    released: Names
    """Names in released files, without ``net.``; those of parameters that no network of the family has do no harm."""
    buffers: ReleasedBuffers
    initial: InitialRules
    diffusers: DiffusersForm | None
    """None for a family that diffusers has no class for."""


def _column(names: Mapping[str, str | tuple[str, ...]], layer: str, in_layer: Mapping[str, Any]) -> Names:
    """``layer`` begins the name of everything in a layer there."""
    both = [*names.items(), *((f"layers.{{i}}.{ours}", theirs) for ours, theirs in in_layer.items())]
    out = {}
    for ours, theirs in both:
        every = (theirs,) if isinstance(theirs, str) else theirs
        out[ours] = tuple(layer + name for name in every) if ours.startswith("layers.") else every
    return out


_RELEASED_BY_ALL = {
    "patch_embedding.weight": "x_embedder.proj.1.weight",
    "position.t": "extra_pos_embedder.pos_emb_t",
    "position.h": "extra_pos_embedder.pos_emb_h",
    "position.w": "extra_pos_embedder.pos_emb_w",
    "view_embedding.weight": "view_embeddings.weight",
    "view_embedding.frame_repeat.weight": "repeat_frame_embedding.weight",
    "view_embedding.frame_repeat.bias": "repeat_frame_embedding.bias",
    "time_embedding.linear_1.weight": "t_embedder.1.linear_1.weight",
    "time_embedding.linear_2.weight": "t_embedder.1.linear_2.weight",
    "final_layer.linear.weight": "final_layer.linear.weight",
}

_PREDICT1 = _column(
    {
        **_RELEASED_BY_ALL,
        "time_embedding.norm_weight": "affline_norm.weight",
        "final_layer.modulation.linear_1.weight": "final_layer.adaLN_modulation.1.weight",
        "final_layer.modulation.linear_2.weight": "final_layer.adaLN_modulation.2.weight",
    },
    "blocks.block{i}.blocks.",
    {
        "self_attention.linear_qkv.weight":
            ("0.block.attn.to_q.0.weight", "0.block.attn.to_k.0.weight", "0.block.attn.to_v.0.weight"),
        "self_attention.q_layernorm.weight": "0.block.attn.to_q.1.weight",
        "self_attention.k_layernorm.weight": "0.block.attn.to_k.1.weight",
        "self_attention.linear_proj.weight": "0.block.attn.to_out.0.weight",
        "cross_attention.linear_q.weight": "1.block.attn.to_q.0.weight",
        "cross_attention.linear_kv.weight": ("1.block.attn.to_k.0.weight", "1.block.attn.to_v.0.weight"),
        "cross_attention.q_layernorm.weight": "1.block.attn.to_q.1.weight",
        "cross_attention.k_layernorm.weight": "1.block.attn.to_k.1.weight",
        "cross_attention.linear_proj.weight": "1.block.attn.to_out.0.weight",
        "mlp.linear_fc1.weight": "2.block.layer1.weight",
        "mlp.linear_fc2.weight": "2.block.layer2.weight",
        "modulation_self_attention.linear_1.weight": "0.adaLN_modulation.1.weight",
        "modulation_self_attention.linear_2.weight": "0.adaLN_modulation.2.weight",
        "modulation_cross_attention.linear_1.weight": "1.adaLN_modulation.1.weight",
        "modulation_cross_attention.linear_2.weight": "1.adaLN_modulation.2.weight",
        "modulation_mlp.linear_1.weight": "2.adaLN_modulation.1.weight",
        "modulation_mlp.linear_2.weight": "2.adaLN_modulation.2.weight",
    },
)  # fmt: skip

_PREDICT2 = _column(
    {
        **_RELEASED_BY_ALL,
        "time_embedding.norm_weight": "t_embedding_norm.weight",
        "final_layer.modulation.linear_1.weight": "final_layer.adaln_modulation.1.weight",
        "final_layer.modulation.linear_2.weight": "final_layer.adaln_modulation.2.weight",
    },
    "blocks.{i}.",
    {
        "self_attention.linear_qkv.weight":
            ("self_attn.q_proj.weight", "self_attn.k_proj.weight", "self_attn.v_proj.weight"),
        "self_attention.q_layernorm.weight": "self_attn.q_norm.weight",
        "self_attention.k_layernorm.weight": "self_attn.k_norm.weight",
        "self_attention.linear_proj.weight": "self_attn.output_proj.weight",
        "cross_attention.linear_q.weight": "cross_attn.q_proj.weight",
        "cross_attention.linear_kv.weight": ("cross_attn.k_proj.weight", "cross_attn.v_proj.weight"),
        "cross_attention.q_layernorm.weight": "cross_attn.q_norm.weight",
        "cross_attention.k_layernorm.weight": "cross_attn.k_norm.weight",
        "cross_attention.linear_proj.weight": "cross_attn.output_proj.weight",
        "mlp.linear_fc1.weight": "mlp.layer1.weight",
        "mlp.linear_fc2.weight": "mlp.layer2.weight",
        "modulation_self_attention.linear_1.weight": "adaln_modulation_self_attn.1.weight",
        "modulation_self_attention.linear_2.weight": "adaln_modulation_self_attn.2.weight",
        "modulation_cross_attention.linear_1.weight": "adaln_modulation_cross_attn.1.weight",
        "modulation_cross_attention.linear_2.weight": "adaln_modulation_cross_attn.2.weight",
        "modulation_mlp.linear_1.weight": "adaln_modulation_mlp.1.weight",
        "modulation_mlp.linear_2.weight": "adaln_modulation_mlp.2.weight",
    },
)  # fmt: skip

_DIFFUSERS_LAYER = "transformer_blocks.{i}."
DIFFUSERS = _column(
    {
        "patch_embedding.weight": "patch_embed.proj.weight",
        "position.t": "learnable_pos_embed.pos_emb_t",
        "position.h": "learnable_pos_embed.pos_emb_h",
        "position.w": "learnable_pos_embed.pos_emb_w",
        "time_embedding.linear_1.weight": "time_embed.t_embedder.linear_1.weight",
        "time_embedding.linear_2.weight": "time_embed.t_embedder.linear_2.weight",
        "time_embedding.norm_weight": "time_embed.norm.weight",
        "final_layer.modulation.linear_1.weight": "norm_out.linear_1.weight",
        "final_layer.modulation.linear_2.weight": "norm_out.linear_2.weight",
        "final_layer.linear.weight": "proj_out.weight",
    },
    _DIFFUSERS_LAYER,
    {
        "self_attention.linear_qkv.weight": ("attn1.to_q.weight", "attn1.to_k.weight", "attn1.to_v.weight"),
        "self_attention.q_layernorm.weight": "attn1.norm_q.weight",
        "self_attention.k_layernorm.weight": "attn1.norm_k.weight",
        "self_attention.linear_proj.weight": "attn1.to_out.0.weight",
        "cross_attention.linear_q.weight": "attn2.to_q.weight",
        "cross_attention.linear_kv.weight": ("attn2.to_k.weight", "attn2.to_v.weight"),
        "cross_attention.q_layernorm.weight": "attn2.norm_q.weight",
        "cross_attention.k_layernorm.weight": "attn2.norm_k.weight",
        "cross_attention.linear_proj.weight": "attn2.to_out.0.weight",
        "mlp.linear_fc1.weight": "ff.net.0.proj.weight",
        "mlp.linear_fc2.weight": "ff.net.2.weight",
        "modulation_self_attention.linear_1.weight": "norm1.linear_1.weight",
        "modulation_self_attention.linear_2.weight": "norm1.linear_2.weight",
        "modulation_cross_attention.linear_1.weight": "norm2.linear_1.weight",
        "modulation_cross_attention.linear_2.weight": "norm2.linear_2.weight",
        "modulation_mlp.linear_1.weight": "norm3.linear_1.weight",
        "modulation_mlp.linear_2.weight": "norm3.linear_2.weight",
    },
)
"""Names in diffusers' ``CosmosTransformer3DModel``, one class for all families, and of the layers in PEFT's files."""

_ADAPTED = (
    "self_attention.linear_qkv", "self_attention.linear_proj",
    "cross_attention.linear_q", "cross_attention.linear_kv", "cross_attention.linear_proj",
    "mlp.linear_fc1", "mlp.linear_fc2",
)  # fmt: skip
LORA_TARGETS: Names = {
    name: tuple(theirs.removeprefix(_DIFFUSERS_LAYER).removesuffix(".weight") for theirs in DIFFUSERS[name])
    for name in (f"layers.{{i}}.{matrix}.weight" for matrix in _ADAPTED)
}
"""Matrices that can have adapters -> what PEFT calls them, within their layer."""

ALSO_TRAINED = ("patch_embedding", "time_embedding", "final_layer")
"""Parts outside the layers that may be trained whole beside adapters, by the first word of our names."""

FAMILIES: Mapping[str, Family] = {
    "predict1": Family(
        objective="edm",
        released=_PREDICT1,
        buffers=ReleasedBuffers(tables=("seq",)),
        initial=InitialRules(matrices="xavier_uniform", time="small_normal", final_modulation="xavier_uniform"),
        diffusers=DiffusersForm(
            settings={"extra_pos_embed_type": "learnable"},
            network={"position_embedding": "learnable", "rope_uses_fps": True},
            pipelines={False: "CosmosTextToWorldPipeline", True: "CosmosVideoToWorldPipeline"},
            scheduler="EDMEulerScheduler",
            scheduler_settings={
                "sigma_min": 0.002, "sigma_max": 80.0, "sigma_data": 0.5, "sigma_schedule": "karras",
                "num_train_timesteps": 1000, "prediction_type": "epsilon", "rho": 7.0,
                "final_sigmas_type": "sigma_min",
            },
            vae="AutoencoderKLCosmos",
        ),
    ),
    "predict2": Family(
        objective="rectified_flow",
        released=_PREDICT2,
        buffers=ReleasedBuffers(
            tables=("seq", "dim_spatial_range", "dim_temporal_range"),
            views_prefix="pos_embedder_options.n_cameras_{n}.",
            counters=(
                ("accum_video_sample_counter", torch.int64), ("accum_image_sample_counter", torch.int64),
                ("accum_iteration", torch.int64), ("accum_train_in_hours", torch.float32),
            ),
        ),
        initial=InitialRules(matrices="truncated_normal", time="truncated_normal", final_modulation="zeros"),
        diffusers=DiffusersForm(
            settings={"extra_pos_embed_type": None},
            network={"position_embedding": "none", "rope_uses_fps": False},
            pipelines={False: "Cosmos2TextToImagePipeline", True: "Cosmos2VideoToWorldPipeline"},
            scheduler="FlowMatchEulerDiscreteScheduler",
            scheduler_settings={
                "use_karras_sigmas": True, "num_train_timesteps": 1000, "sigma_min": 0.002, "sigma_max": 80.0,
                "sigma_data": 1.0, "final_sigmas_type": "sigma_min",
            },
            vae="AutoencoderKLWan",
        ),
    ),
}  # fmt: skip
