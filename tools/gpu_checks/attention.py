"""FlashAttention-4 beside PyTorch's kernel and fp32: attention alone, then output and gradients of two layers."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from unittest.mock import patch

import torch
from torch import Tensor

from gpu_checks.commands import Context
from gpu_checks.machine import NAN
from nemo_cosmos.bench.step import Case, Inputs, build_ours, call_ours
from nemo_cosmos.models.dit import DiTConfig, flash4
from nemo_cosmos.models.dit.attention import scaled_dot_product

HEADS = 4
TAIL = 116
"""Tokens beyond a multiple of every tile."""
NOISE = 1.5
"""How much further from fp32 than cuDNN's it may be; both round the same numbers to bf16."""
NETWORK_DIFFERENCE = 3e-2
"""Of two layers in bf16 whose attention rounds in another order."""


def attention(context: Context, gpus: Sequence[int]) -> None:
    """Errors of output and gradients, then the network; what PyTorch has alone where there is no FlashAttention-4."""
    start, rehearse = time.time(), context.machine.rehearse
    device = "cpu" if rehearse else f"cuda:{gpus[0]}"
    with nullcontext() if rehearse else torch.cuda.device(device):
        name = kernel_name(device, rehearse)
        for batch in (1, 2):
            inputs = list(draw(batch, 64 if rehearse else flash4.LEAST_TOKENS, device))
            exact = passes([x.float() for x in inputs], chosen=False)
            theirs, ours = ([apart(*pair) for pair in zip(passes(inputs, chosen), exact, strict=True)]
                            for chosen in (False, True))  # fmt: skip
            ok = all(a <= NOISE * b + 1e-6 for a, b in zip(ours, theirs, strict=True))
            value = f"{name}; out, dq, dk, dv from fp32: {numbers(ours)}, PyTorch's kernel {numbers(theirs)}"
            context.row(f"attention, batch {batch}", time.time() - start, NAN, value, ok)
        first, second = (output_and_gradients(device, rehearse, chosen=chosen) for chosen in (False, True))
        output = apart(second[0], first[0])
        gradient = apart(*(torch.cat([x.flatten() for x in found[1]]) for found in (second, first)))
        value = f"{name}; output differs by {output:.1e}, the gradient by {gradient:.1e} from PyTorch's kernel"
        ok = max(output, gradient) < NETWORK_DIFFERENCE
        context.row("attention in the network", time.time() - start, NAN, value, ok)
        if not rehearse:
            torch.cuda.empty_cache()


def kernel_name(device: str, rehearse: bool) -> str:
    """What long sequences are attended with here."""
    x = torch.empty(1, flash4.LEAST_TOKENS, 1, flash4.HEAD_DIM, device=device, dtype=torch.bfloat16)
    used = not rehearse and flash4.suits(x, x) and flash4.kernel() is not None
    return f"FlashAttention-4 {flash4.installed_version()}" if used else "PyTorch's kernel, no FlashAttention-4"


def draw(batch: int, tokens: int, device: str) -> Iterator[Tensor]:
    """q, k, v (tokens, batch, heads, d) parts of one tensor as the projection gives them, and a gradient."""
    generator = torch.Generator(device).manual_seed(batch)
    shape = (tokens + TAIL, batch, HEADS)
    fused = torch.randn(*shape, 3, 128, generator=generator, device=device).bfloat16()
    yield from fused.unbind(3)
    yield torch.randn(*shape, 128, generator=generator, device=device).bfloat16()


def passes(inputs: Sequence[Tensor], chosen: bool) -> list[Tensor]:
    """Output and gradients of what this package chooses, or of PyTorch's attention."""
    *qkv, gradient = (x.detach() for x in inputs)
    for x in qkv:
        x.requires_grad_()
    with without(not chosen):
        out = scaled_dot_product(*qkv)
        return [out.detach(), *torch.autograd.grad(out, qkv, gradient)]


def without(flash: bool) -> nullcontext[None] | patch:  # type: ignore[valid-type]
    """Where PyTorch's attention is taken for any length."""
    return patch.object(flash4, "suits", lambda q, k: False) if flash else nullcontext()


def output_and_gradients(device: str, rehearse: bool, *, chosen: bool) -> tuple[Tensor, list[Tensor]]:
    """Of two layers on two views, with random weights."""
    preset = "tiny-predict2-multiview" if rehearse else "predict2-2b-multiview"
    config = DiTConfig.preset(preset, num_layers=2, num_views=2)
    case = Case(config, (16, 8, 8) if rehearse else (16, 64, 64), device=device)
    assert rehearse or case.tokens >= flash4.LEAST_TOKENS
    net, inputs = build_ours(case), Inputs.draw(case)
    with without(not chosen):
        out = call_ours(net, inputs)
        out.backward(inputs.gradient)
    return out.detach(), [parameter.grad for parameter in net.parameters() if parameter.grad is not None]


def apart(found: Tensor, expected: Tensor) -> float:
    """Norm of the difference over that of what is expected."""
    return float((found.float() - expected.float()).norm() / expected.float().norm().clamp_min(1e-30))


def numbers(values: Sequence[float]) -> str:
    return " ".join(f"{value:.1e}" for value in values)
