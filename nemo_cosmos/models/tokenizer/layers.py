"""Building blocks of the Cosmos video tokenizers, written so that TorchScript can compile them.

Tensors are (B, C, T, H, W), kept in ``channels_last_3d`` order: then every view used below (frames merged into the
batch, pixels merged into one axis, channels moved last) is free, 1×3×3 convolutions run as NHWC 2-D convolutions and
3×1×1 ones as 2-D convolutions over (T, H·W), which have faster kernels than 3-D convolutions on CPU and GPU.
Child names are those of the released state dicts.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nemo_cosmos.models.fusion import fused
from nemo_cosmos.models.tokenizer.attention import attention

EPS = 1e-6


def frames_to_batch(x: Tensor) -> Tensor:
    """(B, C, T, H, W) to (B·T, C, H, W)."""
    return x.transpose(1, 2).flatten(0, 1)


def batch_to_frames(x: Tensor, batch: int) -> Tensor:
    """(B·T, C, H, W) to (B, C, T, H, W)."""
    return x.unflatten(0, [batch, -1]).transpose(1, 2)


def repeat_first_frame(x: Tensor, times: int) -> Tensor:
    """(B, C, T, H, W) with its first frame ``times`` more in front."""
    # A frame as one row: CUDA's fast concatenation is for contiguous tensors of at most four axes.
    frames = x.permute(0, 2, 3, 4, 1).flatten(2)
    padded = torch.cat([frames[:, :1].repeat(1, times, 1), frames], dim=1)
    return padded.unflatten(2, [x.shape[3], x.shape[4], x.shape[1]]).permute(0, 4, 1, 2, 3)


class CausalConv3d(nn.Module):
    """Convolution over (T, H, W) that sees no later frame; one of time and space has kernel size 1.

    Time is padded in front by repeating the first frame (k_t − 1 + 1 − stride_t times), space by zeros on all sides.

    Args:
        kernel: (k_t, k_s): frames, rows and columns; at most one of them above 1.
        stride: (stride in time, stride in space).
        padding: zeros on each side in space.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: tuple[int, int] = (1, 1),
        stride: tuple[int, int] = (1, 1),
        padding: int = 0,
    ) -> None:
        super().__init__()
        k_t, k_s = kernel
        assert k_t == 1 or k_s == 1, kernel
        self.conv3d = nn.Conv3d(in_channels, out_channels, (k_t, k_s, k_s), stride=(stride[0], stride[1], stride[1]))
        if max(kernel) > 1:
            # As the activations, so that no kernel has to convert. For 1×1×1 both orders are the same memory; the
            # gradients' strides are the default order's there, and DistributedDataParallel warns where they differ.
            self.conv3d.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
        self.stride_t = stride[0]
        self.stride_s = stride[1]
        self.padding = padding
        self.front_frames = k_t - 1 + 1 - stride[0]
        self.temporal = k_t > 1

    def forward(self, x: Tensor) -> Tensor:
        weight = self.conv3d.weight
        bias = self.conv3d.bias
        # Already so but for what comes from outside and from sums that TorchScript's fuser made.
        x = x.contiguous(memory_format=torch.channels_last_3d)
        if self.temporal:
            if self.front_frames > 0:
                x = repeat_first_frame(x, self.front_frames)
            y = F.conv2d(x.flatten(3), weight[:, :, :, :, 0], bias, stride=(self.stride_t, 1))
            return y.unflatten(3, [x.shape[3], x.shape[4]])
        y = F.conv2d(frames_to_batch(x), weight[:, :, 0], bias, stride=self.stride_s, padding=self.padding)
        return batch_to_frames(y, x.shape[0])


class FrameNorm(nn.Module):
    """GroupNorm with one group over C, H, W of every single frame, eps 1e-6, optionally followed by SiLU."""

    def __init__(self, channels: int, silu: bool) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(1, channels, eps=EPS)
        self.silu = silu

    def forward(self, x: Tensor) -> Tensor:
        frames = frames_to_batch(x)
        if torch.jit.is_scripting():
            y = scripted_frame_norm(frames, self.norm.weight, self.norm.bias, self.silu, self.norm.eps)
        else:
            y = _frame_norm(frames, self.norm.weight, self.norm.bias, self.silu)
        return batch_to_frames(y, x.shape[0])


@torch.jit.unused
def _frame_norm(x: Tensor, weight: Tensor, bias: Tensor, silu: bool) -> Tensor:
    """GroupNorm with one group of (N, C, H, W), then SiLU if asked.

    On CUDA group_norm leaves channels_last (two extra copies) and reduces each frame in a single thread block, which
    starves the device at 720p: there the compiled form runs. On CPU that would cost fp32 copies of the activations.
    """
    if x.is_cuda or torch.compiler.is_compiling():
        return fused_frame_norm(x, weight, bias, silu)
    y = F.group_norm(x, 1, weight, bias, EPS)
    return F.silu(y) if silu else y


def scripted_frame_norm(x: Tensor, weight: Tensor, bias: Tensor, silu: bool, eps: float) -> Tensor:
    """As :func:`_frame_norm`, for TorchScript files, which have no compiler to rely on."""
    gradient = x.requires_grad or weight.requires_grad
    if x.is_cuda and x.dtype != torch.float32 and not gradient:
        return frame_norm_16_bit(x, weight, bias, silu, eps)
    y = F.group_norm(x, 1, weight, bias, eps)
    return F.silu(y) if silu else y


def frame_norm_16_bit(x: Tensor, weight: Tensor, bias: Tensor, silu: bool, eps: float) -> Tensor:
    """As :func:`_frame_norm`, of bf16 or fp16 values without gradient: fp32 arithmetic, nothing large kept in fp32."""
    frame = [1, 2, 3]
    mean = torch.mean(x, frame, keepdim=True, dtype=torch.float32)
    length = torch.linalg.vector_norm(x, 2, frame, keepdim=True, dtype=torch.float32)
    variance = (length.square() / x[0].numel() - mean.square()).clamp(min=0.0)
    scale = torch.rsqrt(variance + eps) * weight.float().view(1, -1, 1, 1)
    shift = bias.float().view(1, -1, 1, 1) - mean * scale
    y = torch.empty_like(x)
    torch.addcmul(shift, x, scale, out=y)
    return F.silu(y, inplace=True) if silu else y


@fused
def fused_frame_norm(x: Tensor, weight: Tensor, bias: Tensor, silu: bool) -> Tensor:
    """As :func:`_frame_norm`, with fp32 moments of every row first and of the frame from those of its rows."""
    wide = x.float()
    row_variance, row_mean = torch.var_mean(wide, dim=[1, 3], correction=0, keepdim=True)
    between, mean = torch.var_mean(row_mean, dim=2, correction=0, keepdim=True)
    variance = row_variance.mean(dim=2, keepdim=True) + between
    scale = torch.rsqrt(variance + EPS) * weight.float().view(1, -1, 1, 1)
    shift = bias.float().view(1, -1, 1, 1) - mean * scale
    y = torch.addcmul(shift, wide, scale)
    return (F.silu(y) if silu else y).to(x.dtype)


def conv_pair(in_channels: int, out_channels: int) -> nn.Sequential:
    """Spatial 1×3×3 then causal temporal 3×1×1 convolution, nothing between them."""
    return nn.Sequential(
        CausalConv3d(in_channels, out_channels, kernel=(1, 3), padding=1),
        CausalConv3d(out_channels, out_channels, kernel=(3, 1)),
    )


class ResidualBlock(nn.Module):
    """norm–SiLU–pair–norm–SiLU–dropout–pair with an identity or 1×1×1 shortcut."""

    def __init__(self, in_channels: int, out_channels: int, dropout: float) -> None:
        super().__init__()
        self.norm1 = FrameNorm(in_channels, silu=True)
        self.conv1 = conv_pair(in_channels, out_channels)
        self.norm2 = FrameNorm(out_channels, silu=True)
        self.dropout = nn.Dropout(dropout)
        self.conv2 = conv_pair(out_channels, out_channels)
        self.nin_shortcut = CausalConv3d(in_channels, out_channels) if in_channels != out_channels else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv1(self.norm1(x))
        h = self.conv2(self.dropout(self.norm2(h)))
        return self.nin_shortcut(x) + h


class Attention(nn.Module):
    """Single-head self-attention over the pixels of a frame, or causally over the frames of a pixel."""

    def __init__(self, channels: int, temporal: bool) -> None:
        super().__init__()
        self.norm = FrameNorm(channels, silu=False)
        self.q = CausalConv3d(channels, channels)
        self.k = CausalConv3d(channels, channels)
        self.v = CausalConv3d(channels, channels)
        self.proj_out = CausalConv3d(channels, channels)
        self.temporal = temporal

    def _tokens(self, x: Tensor) -> Tensor:
        """(B, C, T, H, W) to (sequences, tokens, C)."""
        if self.temporal:
            return x.permute(0, 3, 4, 2, 1).flatten(0, 2)
        return x.permute(0, 2, 3, 4, 1).flatten(2, 3).flatten(0, 1)

    def forward(self, x: Tensor) -> Tensor:
        batch, channels, frames, height, width = x.shape
        h = self.norm(x)
        q, k, v = self._tokens(self.q(h)), self._tokens(self.k(h)), self._tokens(self.v(h))
        if torch.jit.is_scripting():
            heads = (q.unsqueeze(1), k.unsqueeze(1), v.unsqueeze(1))
            out = F.scaled_dot_product_attention(heads[0], heads[1], heads[2], is_causal=self.temporal)
        else:
            out = attention(q, k, v, self.temporal)
        if self.temporal:
            out = out.reshape(batch, height, width, frames, channels).permute(0, 4, 3, 1, 2)
        else:
            out = out.reshape(batch, frames, height, width, channels).permute(0, 4, 1, 2, 3)
        return x + self.proj_out(out)


class Downsample(nn.Module):
    """Halve space and/or time, each as strided convolution plus average pooling, then a 1×1×1 convolution."""

    def __init__(self, channels: int, spatial: bool, temporal: bool) -> None:
        super().__init__()
        assert spatial or temporal
        self.spatial = spatial
        self.temporal = temporal
        self.conv1 = CausalConv3d(channels, channels, kernel=(1, 3), stride=(1, 2)) if spatial else nn.Identity()
        self.conv2 = CausalConv3d(channels, channels, kernel=(3, 1), stride=(2, 1)) if temporal else nn.Identity()
        self.conv3 = CausalConv3d(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        if self.spatial:
            # The pool runs on the unpadded tensor: heights and widths are even here, where both are equal.
            pooled = batch_to_frames(F.avg_pool2d(frames_to_batch(x), 2), x.shape[0])
            x = self.conv1(F.pad(x, [0, 1, 0, 1])) + pooled
        if self.temporal:
            # One repeated frame here and one more inside conv2: the first output sees frame 0 three times.
            x = repeat_first_frame(x, 1)
            pooled = (x[:, :, 0::2] + x[:, :, 1::2]) * 0.5
            x = self.conv2(x) + pooled
        return self.conv3(x)


class Upsample(nn.Module):
    """Double time (T to 2T − 1) and/or space by repetition plus convolution, then a 1×1×1 convolution."""

    def __init__(self, channels: int, spatial: bool, temporal: bool) -> None:
        super().__init__()
        assert spatial or temporal
        self.spatial = spatial
        self.temporal = temporal
        self.conv1 = CausalConv3d(channels, channels, kernel=(3, 1)) if temporal else nn.Identity()
        self.conv2 = CausalConv3d(channels, channels, kernel=(1, 3), padding=1) if spatial else nn.Identity()
        self.conv3 = CausalConv3d(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        if self.temporal:
            last = x.permute(0, 2, 3, 4, 1)
            last = last.unsqueeze(2).expand(-1, -1, 2, -1, -1, -1).flatten(1, 2)[:, 1:]
            x = last.permute(0, 4, 1, 2, 3)
            x = self.conv1(x) + x
        if self.spatial:
            last = x.permute(0, 2, 3, 4, 1)
            last = last.unsqueeze(3).unsqueeze(5).expand(-1, -1, -1, 2, -1, 2, -1).flatten(4, 5).flatten(2, 3)
            x = last.permute(0, 4, 1, 2, 3)
            x = self.conv2(x) + x
        return self.conv3(x)
