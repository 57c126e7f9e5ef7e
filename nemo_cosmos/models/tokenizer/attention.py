"""Attention with heads wider than the fused GPU kernels take.

The tokenizers attend with one head of 512 channels. On CUDA PyTorch has one kernel for that width, at a sixth of the
matrix units' rate; two matrix products around a fused softmax take 0.4 of its time and, backward, 0.15. The scores of
a few frames exist at a time, and the backward pass computes them again, so that memory stays linear in the tokens.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from nemo_cosmos.models.fusion import fused

MAX_FUSED_WIDTH = 256
"""Widest head of PyTorch's flash and cuDNN attention."""
DETERMINISTIC_BACKENDS = [SDPBackend.FLASH_ATTENTION, SDPBackend.MATH]
"""Those whose backward pass adds in a fixed order."""
MAX_SCORES = 2**28
"""Scores in memory at once: 1 GiB in fp32."""
HAS_FP32_PRODUCTS = "dtype" in torch.ops.aten.bmm.overloads()
"""Whether products of bf16 matrices can stay in fp32: from PyTorch 2.8 on. Before, PyTorch's own attention is used."""


def attention(q: Tensor, k: Tensor, v: Tensor, causal: bool) -> Tensor:
    """Softmax attention of (N, tokens, C) with scale 1/√C; ``causal`` hides later tokens."""
    if q.is_cuda and q.shape[-1] > MAX_FUSED_WIDTH and HAS_FP32_PRODUCTS:
        return wide_attention(q, k, v, causal)
    q, k, v = q.unsqueeze(1), k.unsqueeze(1), v.unsqueeze(1)
    if q.is_cuda and torch.are_deterministic_algorithms_enabled():
        with sdpa_kernel(DETERMINISTIC_BACKENDS):
            return F.scaled_dot_product_attention(q, k, v, is_causal=causal).squeeze(1)
    return F.scaled_dot_product_attention(q, k, v, is_causal=causal).squeeze(1)


def wide_attention(q: Tensor, k: Tensor, v: Tensor, causal: bool) -> Tensor:
    """As :func:`attention`, by matrix products; scores and softmax in fp32 at least."""
    with torch.autocast(q.device.type, enabled=False):
        return _WideAttention.apply(q, k, v, causal)


class _WideAttention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, causal: bool) -> Tensor:
        out = torch.empty_like(q)
        for part in _parts(q):
            torch.bmm(_probabilities(q[part], k[part], causal), v[part], out=out[part])
        ctx.save_for_backward(q, k, v, out)
        ctx.causal = causal
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        q, k, v, out = ctx.saved_tensors
        grad = grad.contiguous()
        grad_q, grad_k, grad_v = torch.empty_like(q), torch.empty_like(k), torch.empty_like(v)
        scale = q.shape[-1] ** -0.5
        for part in _parts(q):
            probabilities = _probabilities(q[part], k[part], ctx.causal)
            torch.bmm(probabilities.transpose(1, 2), grad[part], out=grad_v[part])
            scores = _softmax_backward(_product(grad[part], v[part]), probabilities, grad[part], out[part], scale)
            torch.bmm(scores, k[part], out=grad_q[part])
            torch.bmm(scores.transpose(1, 2), q[part], out=grad_k[part])
        return grad_q, grad_k, grad_v, None


def _parts(q: Tensor) -> list[slice]:
    """Slices of the batch with at most MAX_SCORES scores, or single items."""
    step = max(1, MAX_SCORES // q.shape[1] ** 2)
    return [slice(start, start + step) for start in range(0, q.shape[0], step)]


def _probabilities(q: Tensor, k: Tensor, causal: bool) -> Tensor:
    return _softmax(_product(q, k), q.shape[-1] ** -0.5, causal, q.dtype)


def _product(a: Tensor, b: Tensor) -> Tensor:
    """a · bᵀ, not rounded below fp32."""
    if a.dtype in (torch.bfloat16, torch.float16):
        if a.is_cuda:
            return torch.bmm(a, b.transpose(1, 2), out_dtype=torch.float32)
        return torch.bmm(a.float(), b.float().transpose(1, 2))
    return torch.bmm(a, b.transpose(1, 2))


@fused
def _softmax(scores: Tensor, scale: float, causal: bool, dtype: torch.dtype) -> Tensor:
    scores = scores * scale
    if causal:
        tokens = torch.arange(scores.shape[-1], device=scores.device)
        scores = scores.masked_fill(tokens.unsqueeze(0) > tokens.unsqueeze(1), float("-inf"))
    return torch.softmax(scores, dim=-1).to(dtype)


@fused
def _softmax_backward(grad: Tensor, probabilities: Tensor, grad_out: Tensor, out: Tensor, scale: float) -> Tensor:
    """Gradient of the raw scores from that of the probabilities; Σ p·dp is the same as Σ out·dout."""
    mean = (grad_out.to(grad.dtype) * out.to(grad.dtype)).sum(-1, keepdim=True)
    return (probabilities.to(grad.dtype) * (grad - mean) * scale).to(probabilities.dtype)
