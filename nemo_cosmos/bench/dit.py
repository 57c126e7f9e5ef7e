"""Our transformer against diffusers' on one GPU: forward and backward of a slice of the 7B network.

Both networks have the same weights, see the same sample and ask for cuDNN's attention first. TFLOP/s are model FLOPs,
3 × L × (28·S·D² + 4·S·(S + M)·D + 4·M·text·D), over the median time of a step. Needs torch,
megatron-core and diffusers.
"""

from __future__ import annotations

import gc
import time
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
    kernel_times,
    output_difference,
    time_step,
)
from nemo_cosmos.models.dit import DiTConfig
from nemo_cosmos.precision import shown_dtype

START = time.perf_counter()


def say(text: str) -> None:
    print(f"[{time.perf_counter() - START:6.1f} s] {text}", flush=True)


Row = dict[str, Any]


def cases(*, layers: int, smoke: bool) -> list[Case]:
    """What is timed: a tiny network on the CPU, or the 7B's layers at both of its usual lengths."""
    if smoke:
        tiny = {"num_layers": 2, "hidden_size": 64, "num_attention_heads": 4, "text_width": 32, "adaln_lora_dim": 8}
        config = DiTConfig.preset("predict1-7b-video2world", **tiny)
        return [Case(config, (3, 8, 12), torch.float32, "cpu", text_tokens=8, steps=2, warmup=1)]
    config = DiTConfig.preset("predict1-7b-video2world", num_layers=layers)
    return [Case(config, (16, 88, 160), steps=5, warmup=2), Case(config, (8, 64, 64), steps=20, warmup=4)]


def differences(device: str, *, smoke: bool) -> Iterator[Row]:
    """How far our output is from diffusers' on the same weights."""
    for dtype in [torch.float32] if smoke else [torch.float32, torch.bfloat16]:
        small = DiTConfig.preset("predict1-7b-video2world", num_layers=2, hidden_size=512, num_attention_heads=4)
        difference = output_difference(Case(small, (5, 16, 24), dtype, device))
        say(f"output against diffusers' on the same weights, {shown_dtype(dtype)}: {difference:.2e}")
        yield {"check": "output against diffusers", "dtype": str(dtype), "difference": difference}


def run(*, smoke: bool, layers: int, skip_diffusers: bool) -> list[Row]:
    """Print and return every figure.

    Args:
        smoke: a tiny network on the CPU.
        layers: of the 7B.
        skip_diffusers: time and profile our network alone.
    """
    chosen = cases(layers=layers, smoke=smoke)
    if not smoke:
        print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}, cuDNN {torch.backends.cudnn.version()}")
    rows = [] if skip_diffusers else list(differences(chosen[0].device, smoke=smoke))
    for case in chosen:
        rows += time_case(case, skip_diffusers=skip_diffusers)
        torch._dynamo.reset()
        free(case)
    return rows


def time_case(case: Case, *, skip_diffusers: bool) -> list[Row]:
    """Figures of our network, and of diffusers' compiled and eagerly, at one length."""
    rows: list[Row] = []
    measured: list[Measurement] = []
    ours = build_ours(case)
    runs: list[tuple[str, Any, Any]] = [("ours", ours, call_ours)]
    if not skip_diffusers:
        theirs = build_diffusers(case, ours)
        # One compiled module, timed first, and the same module eagerly: compile() would change it in place.
        runs += [("diffusers compiled", torch.compile(theirs, dynamic=False), call_diffusers)]
        runs += [("diffusers eager", theirs, call_diffusers)]
    for name, model, call in runs:
        try:
            measurement = time_step(name, case, model, call)
        except torch.cuda.OutOfMemoryError as error:
            say(f"{name}: out of memory ({error})")
            free(case)
            continue
        measured.append(measurement)
        rows.append({"tokens": case.tokens, "layers": case.config.num_layers, **vars(measurement)})
        say(
            f"{case.tokens:6,} tokens  {name:20} {measurement.seconds * 1e3:9.2f} ms  "
            f"{measurement.tflops:6.1f} TFLOP/s  {measurement.peak_bytes / 2**30:6.2f} GiB"
        )
        if case.device != "cpu" and name != "diffusers eager":
            times = kernel_times(case, model, call)
            rows.append({"tokens": case.tokens, "kernels of": name, **times})
            show_kernels(times, longest=name == "ours")
    for other in measured[1:]:
        say(f"{case.tokens:6,} tokens  ours / {other.name}: {measured[0].tflops / other.tflops:.3f} of its speed")
    return rows


def show_kernels(times: dict[str, Any], *, longest: bool) -> None:
    kinds = ", ".join(f"{kind} {value:.2f}" for kind, value in sorted(times["kinds"].items()))
    say(f"    kernels, ms: {kinds}; sum {sum(times['kinds'].values()):.2f}")
    for kernel, milliseconds, count in times["longest"] if longest else ():
        print(f"        {milliseconds:9.2f} ms ×{count:<4} {kernel}", flush=True)


def free(case: Case) -> None:
    gc.collect()
    if case.device != "cpu":
        torch.cuda.empty_cache()
