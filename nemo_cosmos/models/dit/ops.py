"""Element-wise parts of a layer, each one memory pass when compiled.

They compute in fp32 and round once to the dtype of their first argument. On CUDA they run through ``torch.compile``;
the matrix products, attention and communication between them stay eager, so that no collective is inside a graph.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from nemo_cosmos.models.fusion import fused

EPS = 1e-6


def _modulated_norm(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    normed = _by_time(F.layer_norm(x, x.shape[-1:], eps=EPS), scale)
    return (normed * (1 + scale.float()) + shift.float()).view(x.shape)


def _by_time(x: Tensor, modulation: Tensor) -> Tensor:
    """x (s, B, D) as (times, s / times, B, D) for a modulation (times, 1, B, D), as it is for others."""
    return x if modulation.dim() == x.dim() else x.unflatten(0, (modulation.shape[0], -1))


def _gated_add(x: Tensor, gate: Tensor, y: Tensor) -> Tensor:
    return (_by_time(x.float(), gate) + gate.float() * _by_time(y.float(), gate)).view(x.shape)


def _rms_norm(x: Tensor, gain: Tensor) -> Tensor:
    return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + EPS) * gain.float()


def _rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    first, second = x.chunk(2, dim=-1)
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)


@fused
def modulated_norm(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """LayerNorm without gain, then ``·(1 + scale) + shift``; x (s, B, D), shift and scale (1 or s, B, D),
    or (times, 1, B, D) with s / times tokens for each."""
    return _modulated_norm(x.float(), shift, scale).to(x.dtype)


@fused
def add_position_modulated_norm(x: Tensor, position: Tensor, shift: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
    """x (s, B, D) + position (s, 1, D), and the modulated norm of the sum."""
    # Rounded first, so that the backward pass keeps the sum in x's dtype and not once more in fp32.
    out = x + position.to(x.dtype)
    return out, _modulated_norm(out.float(), shift, scale).to(x.dtype)


@fused
def gated_add(x: Tensor, gate: Tensor, y: Tensor) -> Tensor:
    """x + gate · y, the residual connection; gate as shift and scale of :func:`modulated_norm`."""
    return _gated_add(x, gate, y).to(x.dtype)


@fused
def gated_add_modulated_norm(
    x: Tensor, gate: Tensor, y: Tensor, shift: Tensor, scale: Tensor
) -> tuple[Tensor, Tensor]:
    """The residual connection of one sub-layer and the modulated norm of the next one."""
    out = _gated_add(x, gate, y)
    return out.to(x.dtype), _modulated_norm(out, shift, scale).to(x.dtype)


@fused
def rms_norm(x: Tensor, gain: Tensor) -> Tensor:
    """x / rms(x) · gain over the last dimension."""
    return _rms_norm(x.float(), gain).to(x.dtype)


@fused
def split_heads_norm_rotate(
    qkv: Tensor, gain_q: Tensor, gain_k: Tensor, cos: Tensor, sin: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """qkv (s, B, h, 3, d) -> q, k, v (s, B, h, d): q and k normalised per head, then rotated.

    cos and sin (s, 1 or B, 1, d/2); channel j turns with channel j + d/2.
    """
    q, k, v = qkv.unbind(3)
    q = _rotate(_rms_norm(q.float(), gain_q), cos, sin)
    k = _rotate(_rms_norm(k.float(), gain_k), cos, sin)
    return q.to(qkv.dtype), k.to(qkv.dtype), v.contiguous()


def gelu(x: Tensor) -> Tensor:
    """The exact (erf) GELU; in half precision on CUDA by formulas that cost less than the error function."""
    return _Gelu.apply(x) if x.is_cuda and x.dtype in (torch.bfloat16, torch.float16) else F.gelu(x)


def _normal_distribution(x: Tensor) -> tuple[Tensor, Tensor]:
    """Cumulative distribution and density of the normal distribution at x, in fp32; the first to within 1e-7.

    Abramowitz and Stegun, Handbook of Mathematical Functions, 7.1.26, with erf's argument |x| / √2.
    """
    t = 1.0 / (1.0 + (0.3275911 * 0.5**0.5) * x.abs())
    series = t * (0.254829592 + t * (-0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429))))
    bell = torch.exp(-0.5 * x * x)
    tail = 0.5 * series * bell
    return torch.where(x < 0, tail, 1.0 - tail), bell * (2 * math.pi) ** -0.5


@fused
def _gelu_forward(x: Tensor) -> Tensor:
    value = x.float()
    return (value * _normal_distribution(value)[0]).to(x.dtype)


@fused
def _gelu_backward(x: Tensor, grad: Tensor) -> Tensor:
    value = x.float()
    cumulative, density = _normal_distribution(value)
    return (grad.float() * (cumulative + value * density)).to(x.dtype)


class _Gelu(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return _gelu_forward(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return _gelu_backward(x, grad)


@fused
def normalised_position(t: Tensor, h: Tensor, w: Tensor) -> Tensor:
    """Learnable tables (T', D), (H', D), (W', D) -> (T'·H'·W', 1, D) in fp32 with unit root mean square."""
    value = t.float()[:, None, None] + h.float()[None, :, None] + w.float()[None, None, :]
    norm = torch.linalg.vector_norm(value, dim=-1, keepdim=True)
    return (value / (EPS + norm / value.shape[-1] ** 0.5)).flatten(0, 2).unsqueeze(1)
