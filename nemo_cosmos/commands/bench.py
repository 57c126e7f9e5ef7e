"""The verb `bench`."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import typer

from nemo_cosmos.commands.options import parse_sides
from nemo_cosmos.errors import InputError, require_range


def bench(
    device: Annotated[Literal["auto", "cpu", "cuda"], typer.Option(help="Where to compute.")] = "auto",
    preset: Annotated[str, typer.Option(help="A network of one view without camera rays.")] = "",
    layers: Annotated[int, typer.Option(help="Layers of the network that are timed.")] = 4,
    latent: Annotated[str, typer.Option(help="FRAMESxHEIGHTxWIDTH of the latent.")] = "",
    steps: Annotated[int, typer.Option(help="Timed steps; the median counts.")] = 5,
    compiled: Annotated[
        bool, typer.Option(help="Also time diffusers' transformer with torch.compile (slow to start on a CPU).")
    ] = False,
) -> None:
    """Time one training step of our network and of diffusers' on the same weights, in the same run.

    On a GPU a slice of the 7B at 56,320 tokens in bf16, on a CPU a tiny network in fp32; forward and backward without
    recomputation or optimizer. Prints model FLOPs a second and the ratio.

    [bold]Example:[/bold] nemo-cosmos bench --compiled
    """
    import torch
    from rich.console import Console

    from nemo_cosmos.bench.step import (
        Case,
        build_diffusers,
        build_ours,
        call_diffusers,
        call_ours,
        time_step,
    )
    from nemo_cosmos.models.dit import DiTConfig

    if device == "cuda" and not torch.cuda.is_available():
        raise InputError("--device cuda: no GPU is visible to PyTorch; use --device cpu")
    on_gpu = torch.cuda.is_available() if device == "auto" else device == "cuda"
    require_range("--layers", layers, 1, 1024)
    require_range("--steps", steps, 1, 100_000)
    config = DiTConfig.preset(
        preset or ("predict1-7b-video2world" if on_gpu else "tiny-video2world"), num_layers=layers
    )
    case = Case(
        config,
        _latent(latent) if latent else ((16, 88, 160) if on_gpu else (4, 16, 16)),
        dtype=torch.bfloat16 if on_gpu else torch.float32,
        device="cuda" if on_gpu else "cpu",
        text_tokens=512 if on_gpu else 32,
        steps=steps,
    )
    config.token_grid(*case.latent)
    console = Console(highlight=False)
    name = torch.cuda.get_device_name() if on_gpu else f"CPU, {torch.get_num_threads()} threads"
    console.print(
        f"{name}, torch {torch.__version__}: {layers} layers, width {config.hidden_size}, {case.tokens:,} tokens"
    )
    ours = build_ours(case)
    theirs = build_diffusers(case, ours)
    runs: list[tuple[str, Any, Any]] = [("ours", ours, call_ours), ("diffusers", theirs, call_diffusers)]
    if compiled:
        runs.append(("diffusers, compiled", torch.compile(theirs, dynamic=False), call_diffusers))
    measured = []
    for title, model, call in runs:
        with console.status(f"{title}: {case.warmup} warm-up steps, {case.steps} timed"):
            measured.append(time_step(title, case, model, call))
        m = measured[-1]
        peak = f"  {m.peak_bytes / 2**30:.1f} GiB" if on_gpu else ""
        console.print(f"{title:20} {m.seconds * 1e3:9.2f} ms a step  {m.tflops:8.3f} TFLOP/s{peak}")
    for other in measured[1:]:
        console.print(f"ours is {other.seconds / measured[0].seconds:.3f} × as fast as {other.name}")


def _latent(text: str) -> tuple[int, int, int]:
    frames, height, width = parse_sides(
        text, 3, f"--latent {text[:40]}: expected FRAMESxHEIGHTxWIDTH, for example 16x88x160"
    )
    return frames, height, width
