"""The verb `bench`."""

from __future__ import annotations

from typing import Annotated, Literal

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

    from nemo_cosmos.bench.compare import choose_case, line, measure, where

    if device == "cuda" and not torch.cuda.is_available():
        raise InputError("--device cuda: no GPU is visible to PyTorch; use --device cpu")
    require_range("--layers", layers, 1, 1024)
    require_range("--steps", steps, 1, 100_000)
    case = choose_case(
        on_gpu=torch.cuda.is_available() if device == "auto" else device == "cuda",
        preset=preset or None,
        layers=layers,
        latent=_latent(latent) if latent else None,
        steps=steps,
    )
    console = Console(highlight=False)
    console.print(where(case))
    found = []
    with console.status(f"{case.warmup} warm-up steps each, {case.steps} timed"):
        for measured in measure(case, compiled=compiled):
            found.append(measured)
            console.print(line(measured))
    for other in found[1:]:
        console.print(f"ours is {other.seconds / found[0].seconds:.3f} × as fast as {other.name}")


def _latent(text: str) -> tuple[int, int, int]:
    frames, height, width = parse_sides(
        text, 3, f"--latent {text[:40]}: expected FRAMESxHEIGHTxWIDTH, for example 16x88x160"
    )
    return frames, height, width
