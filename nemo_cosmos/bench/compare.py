"""One training step of our network and of diffusers', side by side: what `nemo-cosmos bench` prints."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch

from nemo_cosmos.bench.step import (
    Case,
    Measurement,
    build_diffusers,
    build_ours,
    call_diffusers,
    call_ours,
    time_step,
)
from nemo_cosmos.models.dit import DiTConfig


def choose_case(
    *, on_gpu: bool, preset: str | None, layers: int, latent: tuple[int, int, int] | None, steps: int
) -> Case:
    """A slice of the 7B at 56,320 tokens in bf16 on a GPU, a tiny network in fp32 on a CPU, unless told otherwise.

    Raises:
        InputError: no such preset, or a latent that its patches do not divide.
    """
    config = DiTConfig.preset(
        preset or ("predict1-7b-video2world" if on_gpu else "tiny-video2world"), num_layers=layers
    )
    case = Case(
        config,
        latent or ((16, 88, 160) if on_gpu else (4, 16, 16)),
        dtype=torch.bfloat16 if on_gpu else torch.float32,
        device="cuda" if on_gpu else "cpu",
        text_tokens=512 if on_gpu else 32,
        steps=steps,
    )
    config.token_grid(*case.latent)
    return case


def measure(case: Case, *, compiled: bool) -> Iterator[Measurement]:
    """Ours first, then diffusers' on the same weights, then, where asked for, diffusers' compiled."""
    ours = build_ours(case)
    theirs = build_diffusers(case, ours)
    runs: list[tuple[str, Any, Any]] = [("ours", ours, call_ours), ("diffusers", theirs, call_diffusers)]
    if compiled:
        runs.append(("diffusers, compiled", torch.compile(theirs, dynamic=False), call_diffusers))
    for title, model, call in runs:
        yield time_step(title, case, model, call)


def where(case: Case) -> str:
    """The machine and the case in one line."""
    on_gpu = case.device != "cpu"
    name = torch.cuda.get_device_name() if on_gpu else f"CPU, {torch.get_num_threads()} threads"
    return (
        f"{name}, torch {torch.__version__}: {case.config.num_layers} layers, width {case.config.hidden_size}, "
        f"{case.tokens:,} tokens"
    )


def line(measured: Measurement) -> str:
    """A measurement in one line."""
    peak = f"  {measured.peak_bytes / 2**30:.1f} GiB" if measured.peak_bytes else ""
    return f"{measured.name:20} {measured.seconds * 1e3:9.2f} ms a step  {measured.tflops:8.3f} TFLOP/s{peak}"
