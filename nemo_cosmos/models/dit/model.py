"""The Cosmos diffusion transformer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from megatron.core.transformer.spec_utils import ModuleSpec, build_module
from megatron.core.transformer.transformer_config import TransformerConfig
from torch import Tensor, nn

from nemo_cosmos.models.dit import state_dict as keys
from nemo_cosmos.models.dit.config import DiTConfig, TokenGrid
from nemo_cosmos.models.dit.embeddings import (
    LearnablePosition,
    RotaryTable,
    SinCosPosition,
    TimeEmbedding,
    ViewEmbedding,
    patchify,
    resize_nearest,
    unpatchify,
)
from nemo_cosmos.models.dit.layer import Conditioning, Modulation
from nemo_cosmos.models.dit.ops import modulated_norm
from nemo_cosmos.models.dit.packing import Arguments, even_times, joined, sequence_split, text_blocks, time_index
from nemo_cosmos.models.dit.sharding import (
    mark_replicated_parameters,
    sharded_state_dict_by_layer,
    stage_layers,
)
from nemo_cosmos.models.dit.specs import layer_spec
from nemo_cosmos.models.dit.stage import Stage
from nemo_cosmos.models.dit.state_dict import LoadReport
from nemo_cosmos.parallel.context import SequenceSplit
from nemo_cosmos.parallel.groups import ParallelGroups


@dataclass(frozen=True)
class LayerOptions:
    """How layers run; nothing here changes a result."""

    context_backend: str = "auto"
    recompute: str = "none"
    recompute_layers: int | None = None
    """Recompute in this many layers of each stage, from its first on; None for all."""


class FinalLayer(nn.Module):
    """Modulated norm and projection to the features of one patch."""

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        self.modulation = Modulation(config.hidden_size, config.adaln_lora_dim, 2)
        self.linear = nn.Linear(config.hidden_size, config.patch_size**2 * config.out_channels, bias=False)

    def forward(self, x: Tensor, c: Conditioning) -> Tensor:
        return self.linear(modulated_norm(x, *self.modulation(c)))


class CosmosDiT(Stage):
    """Predict1 and Predict2 network, or one pipeline stage of it.

    The first stage embeds patches and time; the time embedding and the shared modulation then travel between stages as
    4·F extra rows of the hidden state, so that no parameter of theirs is replicated and their gradient flows back with
    the activations. Only the learnable position tables live on every stage: their gradients are summed over stages,
    and they count in the gradient norm and are saved on the first one alone.
    """

    ROWS_PER_TIME = 4
    """Rows that a hidden state carries for each timestep of a sample beside its tokens."""

    def __init__(
        self,
        config: DiTConfig,
        transformer: TransformerConfig,
        spec: ModuleSpec,
        *,
        groups: ParallelGroups,
        options: LayerOptions,
        pre_process: bool = True,
        post_process: bool = True,
        vp_stage: int | None = None,
    ) -> None:
        super().__init__(transformer)
        self.dit_config = config
        self.groups = groups
        self.pre_process, self.post_process, self.vp_stage = pre_process, post_process, vp_stage
        # Megatron's training loop asks for this; nothing is tied here.
        self.share_embeddings_and_output_weights = False
        self.input_tensor: Tensor | None = None
        self.original_extras = {}
        self.lora = None

        width = config.hidden_size
        if pre_process:
            self.patch_embedding = nn.Linear(config.patch_features, width, bias=False)
            self.time_embedding = TimeEmbedding(config)
            self.view_embedding = ViewEmbedding(config) if config.multiview else None
        self.rotary = RotaryTable(config)
        self.position = None
        if config.position_embedding == "learnable":
            self.position = LearnablePosition(config)
        elif config.position_embedding == "sincos":
            self.position = SinCosPosition(config)

        self.layer_numbers = stage_layers(transformer, groups, vp_stage)
        recomputed = len(self.layer_numbers) if options.recompute_layers is None else options.recompute_layers
        self.layers = nn.ModuleList(
            build_module(
                spec,
                config=transformer,
                groups=groups,
                context_backend=options.context_backend,
                text_width=config.text_width,
                adaln_lora_dim=config.adaln_lora_dim,
                recompute=options.recompute if index < recomputed else "none",
            )
            for index in range(len(self.layer_numbers))
        )
        if post_process:
            self.final_layer = FinalLayer(config)
        self.to(transformer.params_dtype)
        mark_replicated_parameters(self)

    def set_input_tensor(self, input_tensor: Tensor | list[Tensor]) -> None:
        """The hidden state received from the previous stage; called by Megatron's schedules."""
        self.input_tensor = input_tensor[0] if isinstance(input_tensor, list) else input_tensor

    def forward(
        self,
        x: Tensor,
        timesteps: Tensor,
        text: Tensor,
        *,
        fps: Tensor | None = None,
        padding_mask: Tensor | None = None,
        condition_mask: Tensor | None = None,
        plucker: Tensor | None = None,
        view_ids: Tensor | None = None,
        frame_repeat: Tensor | None = None,
    ) -> Tensor:
        """The raw network output F.

        Args:
            x: (B, 16, T, H, W) noisy latent, already multiplied by c_in.
            timesteps: (B,), or (B, T) for a time per latent frame; c_noise for Predict1, t in [0, 1] for Predict2.
            text: (B, M, text_width), padded with zeros, never masked; with V views M = V · tokens per view.
            fps: (B,) frame rate of the pixels; None leaves time positions unscaled.
            padding_mask: (B, 1, Hpix, Wpix), 1 = padded, or (B, V, Hpix, Wpix) with a mask for each view; None means
                nothing is padded.
            condition_mask: (B, 1, T, H, W), 1 on given latent frames; None means none is given.
            plucker: (B, 6, T, H, W) camera rays, for networks with camera control.
            view_ids: (B, V) cameras of a multiview network, None for all of the network's views in order.
            frame_repeat: (B, V) for Predict1 multiview.

        Returns:
            (B, 16, T, H, W) on the last pipeline stage, whole on every rank; the hidden state on the others.
        """
        arguments = Arguments(x, timesteps, text, fps, padding_mask, condition_mask, plucker, view_ids, frame_repeat)
        out = self._run([arguments])
        return out[0] if self.post_process else out

    def forward_packed(self, samples: Sequence[Arguments]) -> list[Tensor] | Tensor:
        """The raw outputs of samples of any shapes, each as :meth:`forward` gives it alone, in one pass.

        Args:
            samples: what :meth:`forward` takes, for each sample with a batch of one.

        Returns:
            A tensor (1, 16, T, H, W) for each on the last pipeline stage; the hidden state on the others.
        """
        if not samples or any(sample.x.shape[0] != 1 for sample in samples):
            raise ValueError("a pack is of at least one sample, each with a batch of one")
        return self._run(samples)

    def _run(self, samples: Sequence[Arguments]) -> Any:
        """List of outputs on the last stage, else the hidden state; more than one sample are packed."""
        grids = [self._grid(sample) for sample in samples]
        split = sequence_split(grids, self.groups, samples[0].text.device)
        patch = self.dit_config.patch_size
        if self.pre_process:
            channels = (self._channels(sample).to(self.config.params_dtype) for sample in samples)
            tokens = split.local_chunk(joined([patchify(part, patch) for part in channels]))
            hidden = self.patch_embedding(tokens)
            times = [self.time_embedding(sample.timesteps) for sample in samples]
            embedding, shared = (joined(parts) for parts in zip(*times, strict=True))
        else:
            assert self.input_tensor is not None, "a later pipeline stage received no hidden state"
            hidden, embedding, shared = self._unpack(self.input_tensor, split.local_tokens)
        c = self._conditioning(samples, grids, split, embedding, shared)
        for layer in self.layers:
            hidden = layer(hidden, c)
        if not self.post_process:
            return self._pack(hidden, embedding, shared)
        out = split.gather(self.final_layer(hidden, c))
        parts = out.split([grid.num_tokens for grid in grids]) if len(grids) > 1 else [out]
        return [unpatchify(part, grid, patch) for part, grid in zip(parts, grids, strict=True)]

    def _grid(self, sample: Arguments) -> TokenGrid:
        grid, num_views = self.dit_config.token_grid(*sample.x.shape[2:]), self._num_views(sample)
        if grid.frames % num_views:
            raise ValueError(f"{grid.frames} latent frames do not divide into {num_views} views")
        if sample.text.shape[1] % num_views:
            raise ValueError(f"{sample.text.shape[1]} text tokens do not divide into {num_views} views")
        return grid

    def _num_views(self, sample: Arguments) -> int:
        if not self.dit_config.multiview:
            if sample.view_ids is not None:
                raise ValueError("view_ids given to a network of one view")
            return 1
        return self.dit_config.num_views if sample.view_ids is None else sample.view_ids.shape[1]

    def _channels(self, sample: Arguments) -> Tensor:
        """(B, C, T, H, W): latent, condition mask, plucker, padding mask, view vector."""
        x, condition_mask, plucker = sample.x, sample.condition_mask, sample.plucker
        padding_mask, view_ids = sample.padding_mask, sample.view_ids
        config = self.dit_config
        b, _, t, h, w = x.shape
        channels = [x]
        if config.condition_mask:
            channels.append(x.new_zeros(b, 1, t, h, w) if condition_mask is None else condition_mask.to(x.dtype))
        elif condition_mask is not None:
            raise ValueError("condition_mask given to a network without that channel (Text2World)")
        if (plucker is not None) != bool(config.plucker_channels):
            raise ValueError(f"this network takes {config.plucker_channels} plucker channels")
        if plucker is not None:
            channels.append(plucker.to(x.dtype))
        if padding_mask is None:
            channels.append(x.new_zeros(b, 1, t, h, w))
        else:
            masks = padding_mask.shape[1]
            if masks not in (1, self._num_views(sample)):
                raise ValueError(f"{masks} padding masks for {self._num_views(sample)} views: expected one, or each")
            resized = resize_nearest(padding_mask.to(x.dtype), h, w)
            channels.append(resized.repeat_interleave(t // masks, dim=1).unsqueeze(1))
        if config.multiview:
            num_views = self._num_views(sample)
            if view_ids is None:
                view_ids = torch.arange(num_views, device=x.device).expand(b, -1)
            assert self.view_embedding is not None
            vector = self.view_embedding(view_ids, sample.frame_repeat).repeat_interleave(t // num_views, dim=1)
            channels.append(vector.transpose(1, 2)[..., None, None].expand(-1, -1, -1, h, w).to(x.dtype))
        return torch.cat(channels, dim=1)

    def _conditioning(
        self,
        samples: Sequence[Arguments],
        grids: Sequence[TokenGrid],
        split: SequenceSplit,
        embedding: Tensor,
        shared: Tensor,
    ) -> Conditioning:
        views = [self._num_views(sample) for sample in samples]
        tables = [
            self.rotary(grid, sample.fps, count, sample.text.device)
            for sample, grid, count in zip(samples, grids, views, strict=True)
        ]
        times: Tensor | slice | None = None
        if sum(sample.num_times for sample in samples) > 1:
            times = even_times(samples, grids, split)
            if times is None:
                times = split.local_chunk(time_index(samples, grids)[:, None])[:, 0]
        position = None
        if self.position is not None:
            position = split.local_chunk(
                joined([self.position(grid, count) for grid, count in zip(grids, views, strict=True)])
            )
        return Conditioning(
            embedding=F.silu(embedding),
            shared=shared,
            times=times,
            text=joined([sample.text.to(self.config.params_dtype).transpose(0, 1) for sample in samples]),
            rotary=tuple(split.context_chunk(joined(parts)) for parts in zip(*tables, strict=True)),
            position=position,
            split=split,
            text_blocks=text_blocks(samples, grids, views, split),
        )

    @staticmethod
    def _pack(hidden: Tensor, embedding: Tensor, shared: Tensor) -> Tensor:
        """One tensor for the next stage: tokens, then F rows of embedding, then 3·F rows of shared modulation."""
        parts = (hidden, embedding, *shared.chunk(3, dim=-1))
        return torch.cat([part.to(hidden.dtype) for part in parts])

    @staticmethod
    def _unpack(packed: Tensor, local_tokens: int) -> tuple[Tensor, Tensor, Tensor]:
        time_frames = (packed.shape[0] - local_tokens) // 4
        hidden, embedding, *shared = packed.split([local_tokens] + [time_frames] * 4)
        return hidden, embedding, torch.cat(shared, dim=-1)

    def load_original(self, state_dict: Mapping[str, Tensor], *, strict: bool = True) -> LoadReport:
        """Load tensors named as in the released files, with or without the ``net.`` prefix.

        On a network split over processes every rank passes the whole dict and takes its part. ``logvar.*`` and
        ``*_extra_state`` are passed over.

        Raises:
            InputError: a key is missing, unknown or misshapen and ``strict`` is true; at most 20 of each are named.
        """
        return keys.load(self, state_dict, strict=strict)

    def to_original(self) -> dict[str, Tensor]:
        """State dict with every released key, ``net.`` prefix included; the network must be whole in this process."""
        return keys.export(self)

    def sharded_state_dict(
        self, prefix: str = "", sharded_offsets: tuple = (), metadata: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        """Megatron distributed checkpoint entries, named by global layer number and saved once."""
        return sharded_state_dict_by_layer(self, prefix, metadata)


def build_dit(
    config: DiTConfig,
    *,
    transformer: TransformerConfig | None = None,
    groups: ParallelGroups | None = None,
    options: LayerOptions = LayerOptions(),
    pre_process: bool = True,
    post_process: bool = True,
    vp_stage: int | None = None,
    seed: int | None = 0,
) -> CosmosDiT:
    """A network, fp32 by default, in this process alone or as this rank's part of a parallel layout.

    Args:
        transformer: Megatron's configuration (dtype, parallel sizes); by default one process in fp32.
        groups: process groups; by default those of ``parallel_state`` when ``transformer`` is given, else one process.
        seed: of the initial weights, which do not depend on the layout; None leaves memory uninitialised, for weights
            that are loaded next. Nothing is initialised on the meta device.
    """
    if transformer is None:
        transformer, groups = transformer_config(config), groups or ParallelGroups()
    elif groups is None:
        groups = ParallelGroups.current(sequence=transformer.sequence_parallel)
    net = CosmosDiT(
        config,
        transformer,
        layer_spec(
            parallel=groups.tensor is not None, transformer_engine=options.context_backend == "transformer_engine"
        ),
        groups=groups,
        options=options,
        pre_process=pre_process,
        post_process=post_process,
        vp_stage=vp_stage,
    )
    if seed is not None and not next(net.parameters()).is_meta:
        from nemo_cosmos.models.dit.init import InitialWeights

        net.load_original(InitialWeights(config, seed))
    return net


def transformer_config(config: DiTConfig, *, dtype: torch.dtype = torch.float32, **options: Any) -> TransformerConfig:
    """Megatron's configuration for ``config``; ``options`` are fields of it, such as the parallel sizes."""
    transformer = TransformerConfig(
        num_layers=config.num_layers,
        hidden_size=config.hidden_size,
        num_attention_heads=config.num_attention_heads,
        ffn_hidden_size=config.mlp_size,
        kv_channels=config.head_dim,
        add_bias_linear=False,
        hidden_dropout=0.0,
        attention_dropout=0.0,
        layernorm_epsilon=1e-6,
        # Megatron then sums the gradients of q_layernorm and k_layernorm over the tensor group.
        qk_layernorm=True,
        use_cpu_initialization=True,
        perform_initialization=False,
        gradient_accumulation_fusion=False,
        params_dtype=dtype,
        pipeline_dtype=dtype,
        bf16=dtype == torch.bfloat16,
        **options,
    )
    # Megatron then sums the gradients of parameters marked ``pipeline_parallel`` over the pipeline group.
    transformer.has_cond_embedder = True
    return transformer
