"""The verb `plan`."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from nemo_cosmos.errors import InputError

if TYPE_CHECKING:
    from nemo_cosmos.config import TrainConfig
    from nemo_cosmos.parallel.plan import Plan

SHOWN = 12


def plan(
    arguments: Annotated[
        list[str],
        typer.Argument(
            metavar="KEY=VALUE",
            help="experiment=NAME gpus=N gpu_memory=80GB, latent=FRAMESxHEIGHTxWIDTH where the shards are not there "
            "yet, gpus_per_node=8, and any setting that differs.",
        ),
    ],
    everything: Annotated[
        bool, typer.Option("--all", help="Also layouts that do not fit, and all the slow ones.")
    ] = False,
) -> None:
    """List the parallel layouts of an experiment on a number of GPUs, with predicted memory and relative speed.

    Memory is what PyTorch allocates on the fullest GPU; 3 GiB are kept free beside it. Nothing is built or started.

    [bold]Example:[/bold] nemo-cosmos plan experiment=video2world_7b_example_hdvila gpus=16 gpu_memory=80GB
    """
    from rich.console import Console

    from nemo_cosmos.config import TrainConfig, load_config
    from nemo_cosmos.models.dit.config import DiTConfig
    from nemo_cosmos.models.dit.size import network_size
    from nemo_cosmos.parallel.memory import Workload
    from nemo_cosmos.parallel.plan import adapter_parameters, make_plans, parse_memory, recommended

    own = {"gpus": "8", "gpu_memory": "80GB", "gpus_per_node": "8", "latent": ""}
    overrides = []
    for argument in arguments:
        key, _, value = argument.partition("=")
        if key in own:
            own[key] = value
        else:
            overrides.append(argument)
    config = load_config(TrainConfig, overrides)
    network = DiTConfig.preset(config.model.preset, **config.model.overrides)
    size = network_size(network)
    latent, origin = _latent(own["latent"], config)
    frames, height, width = latent
    grid = frames, height // network.patch_size, width // network.patch_size
    work = Workload(
        tokens=grid[0] * grid[1] * grid[2],
        text_tokens=config.data.text_length * network.num_views,
        micro_batch=config.data.micro_batch,
        value_bytes=2 if config.trainer.precision == "bf16" else 4,
        ema=config.ema.enabled,
        adapter_parameters=(
            adapter_parameters(size, config.lora.rank, config.lora.targets) if config.lora.enabled else None
        ),
    )
    gpus = _number("gpus", own["gpus"])
    memory = parse_memory(own["gpu_memory"])
    plans = make_plans(
        size, work, config.parallel, gpus=gpus, gpu_memory=memory, global_batch=config.data.global_batch,
        gpus_per_node=_number("gpus_per_node", own["gpus_per_node"]),
    )  # fmt: skip
    best = recommended(plans, config.data.global_batch)
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 150)
    console.print(
        f"{config.model.preset}: {size.parameters / 1e9:.2f} billion parameters, {work.tokens:,} tokens a sample "
        f"(latents of {frames}×{height}×{width}, {origin}), micro batch {config.data.micro_batch}, global batch "
        f"{config.data.global_batch}, {gpus} GPUs of {memory / 2**30:.1f} GiB"
    )
    fitting = sum(plan.fits for plan in plans)
    shown = plans if everything else _shown(plans, best)
    console.print(_table(shown, best, config.data.global_batch))
    console.print(
        f"{len(plans)} valid layouts, {fitting} fit; {len(shown)} shown"
        + ("" if everything else ", --all for the rest")
    )
    if best is None:
        least = min(plans, key=lambda plan: plan.chosen.total)
        console.print(
            f"None fits: {least.layout} with {least.parallel.recompute} recomputation needs least, "
            f"{least.chosen.total / 2**30:.1f} GiB + 3. Use more GPUs, lora=attention or shorter clips."
        )
        raise typer.Exit(1)
    batch = [] if best.global_batch == config.data.global_batch else [f"data.global_batch={best.global_batch}"]
    console.print(f"Recommended: {' '.join([*best.overrides, *batch])}", soft_wrap=True)


def _number(key: str, value: str) -> int:
    if not value.isdecimal() or int(value) < 1:
        raise InputError(f"{key}={value}: expected a number of at least 1")
    return int(value)


def _latent(text: str, config: TrainConfig) -> tuple[tuple[int, int, int], str]:
    """Latent frames, height and width, and where they come from."""
    if text:
        parts = text.lower().split("x")
        if len(parts) != 3 or not all(part.isdecimal() and int(part) > 0 for part in parts):
            raise InputError(f"latent={text}: expected FRAMESxHEIGHTxWIDTH of the latent, for example 16x88x160")
        return (int(parts[0]), int(parts[1]), int(parts[2])), "as given"
    from pathlib import Path

    if (Path(config.data.path) / "manifest.json").is_file():
        from nemo_cosmos.data.shards import ShardDataset

        _, frames, height, width = ShardDataset(config.data.path, verify="size").manifest.latent_shape
        return (frames, height, width), f"from {config.data.path}"
    return (16, 88, 160), "121 frames of 704×1280; latent=FRAMESxHEIGHTxWIDTH for others"


def _shown(plans: list[Plan], best: Plan | None) -> list[Plan]:
    """The fastest that fit, and the recommended one."""
    out = [plan for plan in plans if plan.fits][:SHOWN] or plans[:SHOWN]
    if best is not None and best not in out:
        out[-1] = best
    return out


def _table(plans: list[Plan], best: Plan | None, global_batch: int) -> object:
    from rich.table import Table

    fastest = max(plan.tflops for plan in plans)
    table = Table(
        caption="GiB on the fullest GPU, activations by recompute mode; speed per sample; * needs that global batch",
        caption_justify="left",
    )
    for name in ("", "tensor", "pipeline", "context", "data", "batch", "weights", "grads", "optimizer", "EMA",
                 "none", "selective", "full", "recompute", "total", "speed"):  # fmt: skip
        table.add_column(name, justify="center" if name == "recompute" else "right")
    for plan in plans:
        memory, layout = plan.chosen, plan.layout
        activations = [f"{plan.memory[mode].activations / 2**30:.1f}" for mode in ("none", "selective", "full")]
        chunks = f"×{plan.parallel.virtual_pipeline}" if plan.parallel.virtual_pipeline else ""
        table.add_row(
            "→" if plan is best else "",
            f"{layout.tensor}{' sp' if plan.parallel.sequence else ''}", f"{layout.pipeline}{chunks}",
            str(layout.context), str(layout.data),
            f"{plan.global_batch}{'' if plan.global_batch == global_batch else ' *'}",
            *(f"{value / 2**30:.1f}" for value in (memory.weights, memory.gradients, memory.optimizer, memory.ema)),
            *activations, plan.parallel.recompute if plan.fits else "too large", f"{memory.total / 2**30:.1f}",
            f"{plan.tflops / fastest:.2f}",
            style="bold" if plan is best else None,
        )  # fmt: skip
    return table
