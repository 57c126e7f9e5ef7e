"""Encoder, decoder and the whole Cosmos-Tokenize1 module."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from nemo_cosmos.models.tokenizer.checks import check_indices, check_latent, check_video, checked_values
from nemo_cosmos.models.tokenizer.config import TokenizerConfig
from nemo_cosmos.models.tokenizer.haar import HaarPatcher3D, HaarUnpatcher3D
from nemo_cosmos.models.tokenizer.layers import (
    Attention,
    CausalConv3d,
    Downsample,
    FrameNorm,
    ResidualBlock,
    Upsample,
    conv_pair,
)
from nemo_cosmos.models.tokenizer.quantizer import FSQuantizer
from nemo_cosmos.models.tokenizer.state_dict import LoadReport, load_original, to_original
from nemo_cosmos.upstream.compiler import allow_many_shapes, compile_blocks_whole


class TokenizerOutput(NamedTuple):
    """What one training forward gives."""

    reconstruction: Tensor
    """(B, 3, T, H, W), not clamped."""
    latent: Tensor
    """(B, C, t, h, w): continuous latents or codes, as the decoder takes them."""
    indices: Tensor | None
    """(B, t, h, w) int32 for discrete tokenizers."""
    moments: Tensor | None
    """(B, 2C, t, h, w) mean and log-variance for the VAE formulation."""


class Mid(nn.Module):
    """Residual block, spatial then temporal attention, residual block."""

    def __init__(self, channels: int, dropout: float) -> None:
        super().__init__()
        self.block_1 = ResidualBlock(channels, channels, dropout)
        self.attn_1 = nn.Sequential(Attention(channels, temporal=False), Attention(channels, temporal=True))
        self.block_2 = ResidualBlock(channels, channels, dropout)

    def forward(self, x: Tensor) -> Tensor:
        return self.block_2(self.attn_1(self.block_1(x)))


class DownLevel(nn.Module):
    """Residual blocks of one resolution and the step to the next."""

    def __init__(
        self, in_channels: int, channels: int, num_blocks: int, dropout: float, downsample: nn.Module
    ) -> None:
        super().__init__()
        widths = [in_channels] + [channels] * num_blocks
        self.block = nn.ModuleList([ResidualBlock(widths[i], widths[i + 1], dropout) for i in range(num_blocks)])
        self.downsample = downsample

    def forward(self, x: Tensor) -> Tensor:
        for block in self.block:
            x = block(x)
        return self.downsample(x)


class UpLevel(nn.Module):
    """Residual blocks of one resolution and the step to the next finer one."""

    def __init__(self, in_channels: int, channels: int, num_blocks: int, dropout: float, upsample: nn.Module) -> None:
        super().__init__()
        widths = [in_channels] + [channels] * num_blocks
        self.block = nn.ModuleList([ResidualBlock(widths[i], widths[i + 1], dropout) for i in range(num_blocks)])
        self.upsample = upsample

    def forward(self, x: Tensor) -> Tensor:
        for block in self.block:
            x = block(x)
        return self.upsample(x)


class Encoder(nn.Module):
    """Video (B, 3, T, H, W) to features (B, z, t, h, w)."""

    def __init__(self, config: TokenizerConfig) -> None:
        super().__init__()
        self.checkpointing = False
        self.patcher3d = HaarPatcher3D(config.patch_size)
        self.conv_in = conv_pair(config.in_channels * config.patch_size**3, config.channels)
        num_levels = len(config.channels_mult)
        levels: list[nn.Module] = []
        width = config.channels
        for level in range(num_levels):
            channels = config.channels * config.channels_mult[level]
            spatial = level < config.num_spatial_downs and level < num_levels - 1
            temporal = level < config.num_temporal_downs and level < num_levels - 1
            step = Downsample(channels, spatial, temporal) if spatial or temporal else nn.Identity()
            levels.append(DownLevel(width, channels, config.num_res_blocks, config.dropout, step))
            width = channels
        self.down = nn.ModuleList(levels)
        self.mid = Mid(width, config.dropout)
        self.norm_out = FrameNorm(width, silu=True)
        self.conv_out = conv_pair(width, config.z_channels * config.z_factor)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv_in(self.patcher3d(x))
        if torch.jit.is_scripting():
            for level in self.down:
                x = level(x)
            x = self.mid(x)
        else:
            for level in self.down:
                x = self._run(level, x)
            x = self._run(self.mid, x)
        return self.conv_out(self.norm_out(x))

    @torch.jit.unused
    def _run(self, module: nn.Module, x: Tensor) -> Tensor:
        return _run_block(module, x, self.checkpointing and self.training)


class Decoder(nn.Module):
    """Features (B, z, t, h, w) to video (B, 3, T, H, W). ``up`` is indexed by resolution: ``up.0`` is the finest."""

    def __init__(self, config: TokenizerConfig) -> None:
        super().__init__()
        self.checkpointing = False
        num_levels = len(config.channels_mult)
        width = config.channels * config.channels_mult[-1]
        self.conv_in = conv_pair(config.z_channels, width)
        self.mid = Mid(width, config.dropout)
        levels: list[nn.Module] = [nn.Identity()] * num_levels
        for level in reversed(range(num_levels)):
            channels = config.channels * config.channels_mult[level]
            spatial, temporal = _upsampling(config, num_levels - 1 - level)
            step = Upsample(channels, spatial, temporal) if level > 0 and (spatial or temporal) else nn.Identity()
            levels[level] = UpLevel(width, channels, config.num_res_blocks + 1, config.dropout, step)
            width = channels
        self.up = nn.ModuleList(levels)
        self.norm_out = FrameNorm(width, silu=True)
        self.conv_out = conv_pair(width, config.out_channels * config.patch_size**3)
        self.unpatcher3d = HaarUnpatcher3D(config.patch_size)

    def forward(self, z: Tensor) -> Tensor:
        x = self.conv_in(z)
        if torch.jit.is_scripting():
            x = self.mid(x)
            # TorchScript gives the items of a reversed list no __call__.
            for level in self.up[::-1]:
                x = level.forward(x)
        else:
            x = self._run(self.mid, x)
            for level in reversed(self.up):
                x = self._run(level, x)
        return self.unpatcher3d(self.conv_out(self.norm_out(x)))

    @torch.jit.unused
    def _run(self, module: nn.Module, x: Tensor) -> Tensor:
        return _run_block(module, x, self.checkpointing and self.training)


def _run_block(module: nn.Module, x: Tensor, checkpointing: bool) -> Tensor:
    return checkpoint(module, x, use_reentrant=False) if checkpointing else module(x)


def _upsampling(config: TokenizerConfig, depth: int) -> tuple[bool, bool]:
    """(spatial, temporal) upsampling after the decoder level ``depth`` steps above the bottleneck."""
    if config.legacy_mode:
        return depth < config.num_spatial_downs, depth < config.num_temporal_downs
    temporal = 0 < depth < config.num_temporal_downs + 1
    spatial = temporal or (depth < config.num_spatial_downs and config.num_spatial_downs > config.num_temporal_downs)
    return spatial, temporal


class TokenizerModule(nn.Module):
    """A Cosmos video tokenizer with raw latents (no mean and std); see :class:`VideoTokenizer` for normalised ones.

    Video is (B, 3, T, H, W) in [−1, 1], T = 1 + k·temporal_compression, H and W multiples of spatial_compression.
    """

    def __init__(self, config: TokenizerConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = Encoder(config)
        self.decoder = Decoder(config)
        self.quant_conv = CausalConv3d(config.z_channels * config.z_factor, config.latent_channels * config.z_factor)
        self.post_quant_conv = CausalConv3d(config.latent_channels, config.z_channels)
        if config.discrete:
            self.quantizer = FSQuantizer(config.levels)

    def encode(self, video: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """Raw latents (B, C, t, h, w), or (indices (B, t, h, w) int32, codes (B, 6, t, h, w)) for discrete ones.

        The VAE formulation gives the posterior's mean.

        Raises:
            InputError: a frame count or size that the compression does not divide (names the nearest legal values), an
                empty batch, integers, or values outside [−1, 1].
        """
        self.check_video(video)
        with checked_values(self.config, video):
            return self.encode_checked(video)

    def encode_checked(self, video: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """:meth:`encode` of a video that has been checked."""
        moments = self.quant_conv(self.encoder(video))
        if self.config.discrete:
            indices, codes = self.quantizer(moments)
            return indices, codes
        return moments.chunk(2, dim=1)[0] if self.config.formulation == "VAE" else moments

    def decode(self, latents: Tensor) -> Tensor:
        """Video (B, 3, T, H, W), not clamped, from latents; discrete ones take indices (integer dtype).

        Raises:
            InputError: another type or shape, an empty batch, or indices outside the codebook.
        """
        if self.config.discrete:
            check_indices(self.config, latents)
            with checked_values(self.config, latents):
                return self.decode_codes(
                    self.quantizer.indices_to_codes(latents).to(self.post_quant_conv.conv3d.weight.dtype)
                )
        return self.decode_codes(latents)

    def decode_codes(self, codes: Tensor) -> Tensor:
        """Video from continuous latents or FSQ codes (B, C, t, h, w)."""
        check_latent(self.config, codes)
        return self.decoder(self.post_quant_conv(codes))

    def forward(self, video: Tensor) -> TokenizerOutput:
        """Reconstruction with gradients; the VAE formulation samples its posterior while training."""
        self.check_video(video)
        moments = self.quant_conv(self.encoder(video))
        if self.config.discrete:
            indices, codes = self.quantizer(moments)
            return TokenizerOutput(self.decode_codes(codes), codes, indices, None)
        if self.config.formulation == "VAE":
            mean, logvar = moments.chunk(2, dim=1)
            latent = mean
            if self.training:
                std = (0.5 * logvar.float().clamp(-30.0, 20.0)).exp().to(mean.dtype)
                latent = mean + std * torch.randn_like(mean)
            return TokenizerOutput(self.decode_codes(latent), latent, None, moments)
        return TokenizerOutput(self.decode_codes(moments), moments, None, None)

    def check_video(self, video: Tensor) -> None:
        """InputError unless ``video`` has a type and shape that this tokenizer compresses without remainder."""
        check_video(self.config, video)

    def enable_checkpointing(self, enabled: bool = True) -> None:
        """Recompute every level in the backward pass instead of keeping its activations."""
        self.encoder.checkpointing = enabled
        self.decoder.checkpointing = enabled

    def compile_blocks(self, **options: Any) -> None:
        """torch.compile residual blocks, down- and upsampling and the outer convolutions in place.

        It happens at the first call; blocks of one shape share it. Attention stays outside: its parts are compiled by
        themselves.

        Args:
            options: as of torch.compile.
        """
        # All blocks share nn.Module's call, whose default of 8 variants would leave the later ones uncompiled.
        allow_many_shapes()
        compile_blocks_whole()
        outer = [half.get_submodule(name) for half in (self.encoder, self.decoder) for name in ("conv_in", "conv_out")]
        for module in self.modules():
            if module in outer or isinstance(module, ResidualBlock | Downsample | Upsample):
                module.compile(**options)

    def tune(self) -> TokenizerModule:
        """Compile the blocks on CUDA; nothing on CPU.

        Call it after the module was moved. The first clip of a new size then takes some seconds longer.
        """
        compiled = self.decoder.conv_out._compiled_call_impl is not None  # A module that was on the CPU meanwhile.
        if self.post_quant_conv.conv3d.weight.is_cuda and not compiled:
            self.compile_blocks(dynamic=False)
        return self

    def last_layer(self) -> Tensor:
        """The decoder's last spatial weight, where adaptive loss weights compare gradients."""
        last = self.decoder.conv_out[1]
        assert isinstance(last, CausalConv3d)
        return last.conv3d.weight

    def load_original(self, state_dict: Mapping[str, Tensor], strict: bool = True) -> LoadReport:
        """Load weights in the released key layout; see :func:`state_dict.load_original`."""
        return load_original(self, state_dict, strict=strict)

    def to_original(self) -> dict[str, Tensor]:
        """State dict in the released key layout, buffers included."""
        return to_original(self)


def build_tokenizer(preset: str, **overrides: Any) -> TokenizerModule:
    """A tokenizer with fresh fp32 weights.

    Args:
        preset: ``CV8x8x8-720p``, ``CV4x8x8-360p``, ``DV8x16x16-720p`` or ``DV4x8x8-360p``.
        overrides: any field of :class:`TokenizerConfig`, e.g. ``channels=16, channels_mult=(1, 2, 2)``.
    """
    return TokenizerModule(TokenizerConfig.preset(preset, **overrides))
