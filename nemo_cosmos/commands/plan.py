"""The verb `plan`."""

from __future__ import annotations

import math
import re
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from nemo_cosmos.commands.options import parse_sides
from nemo_cosmos.errors import InputError

if TYPE_CHECKING:
    from nemo_cosmos.config import TrainConfig
    from nemo_cosmos.models.dit.config import DiTConfig
    from nemo_cosmos.planning.cost import NetworkSize
    from nemo_cosmos.planning.memory import Workload
    from nemo_cosmos.planning.plan import Plan

SHOWN = 12
MOST_GPUS = 1 << 16
MEMORY_SIZES = ("80GB", "141GB")
"""Of the GPUs that smallest machines are named for."""
RELEASED_LATENT = (16, 88, 160)
"""Latent of 121 frames of 704 x 1280 pixels."""
VIEW_FRAMES = 8
"""Latent frames of a view in the released networks of several views: 29 or 57 frames of video."""


def plan(
    arguments: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="KEY=VALUE",
            help="experiment=NAME gpus=N gpu_memory=80GB, latent=FRAMESxHEIGHTxWIDTH where the shards are not there "
            "yet (frames of all views=N together), gpus_per_node=8, and any setting that differs.",
        ),
    ] = None,
    everything: Annotated[
        bool, typer.Option("--all", help="Also layouts that do not fit, and all the slow ones.")
    ] = False,
    experiments: Annotated[
        bool, typer.Option("--experiments", help="Instead: the smallest machine of every shipped experiment.")
    ] = False,
) -> None:
    """List the parallel layouts of an experiment on a number of GPUs, with predicted memory and relative speed.

    Memory is what PyTorch allocates on the fullest GPU; 3 GiB are kept free beside it. Nothing is built or started.

    [bold]Example:[/bold] nemo-cosmos plan experiment=video2world_7b_example_hdvila gpus=16 gpu_memory=80GB
    """
    from rich.console import Console

    from nemo_cosmos.config import TrainConfig, load_config
    from nemo_cosmos.planning.plan import make_plans, parse_memory, recommended

    if experiments:
        if arguments or everything:
            raise InputError("--experiments takes no other argument: it lists every shipped experiment as it is")
        _print_smallest_machines()
        return
    own = {"gpus": "8", "gpu_memory": "80GB", "gpus_per_node": "8", "latent": "", "views": ""}
    overrides = []
    for argument in arguments or []:
        key, _, value = argument.partition("=")
        if key in own:
            own[key] = value
        else:
            overrides.append(argument)
    config = load_config(TrainConfig, overrides)
    latent, views, origin = latent_of(own["latent"], own["views"], config)
    frames, height, width = latent
    sides = f"{frames}×{height}×{width}" + (f", {views} views" if views > 1 else "")
    size, work = workload_of(config, latent, views)
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
        f"(latents of {sides}, {origin}), micro batch {config.data.micro_batch}, global batch "
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


def released_latent(config: TrainConfig) -> tuple[int, int, int]:
    """Latent frames, height and width of a sample of 720p as the released networks take it, of all their views."""
    network = _network(config)
    if not network.multiview:
        return RELEASED_LATENT
    return (VIEW_FRAMES * network.num_views, *RELEASED_LATENT[1:])


def workload_of(
    config: TrainConfig, latent: tuple[int, int, int], views: int | None = None
) -> tuple[NetworkSize, Workload]:
    """Size of an experiment's network, and one micro batch of latents of (frames, height, width).

    Args:
        views: of a sample; None: all that the network has.
    """
    from nemo_cosmos.models.dit.size import network_size
    from nemo_cosmos.planning.memory import Workload
    from nemo_cosmos.planning.plan import adapter_parameters

    network = _network(config)
    count = network.num_views if views is None else views
    size = network_size(network)
    frames, height, width = latent
    lora = config.lora
    return size, Workload(
        tokens=frames * (height // network.patch_size) * (width // network.patch_size),
        text_tokens=config.data.text_length * count,
        num_views=count,
        micro_batch=config.data.micro_batch,
        value_bytes=2 if config.trainer.precision == "bf16" else 4,
        ema=config.ema.enabled,
        adapter_parameters=adapter_parameters(size, lora.rank, lora.targets) if lora.enabled else None,
    )


def _network(config: TrainConfig) -> DiTConfig:
    from nemo_cosmos.models.dit.config import DiTConfig

    return DiTConfig.preset(config.model.preset, **config.model.overrides)


def smallest_machines(
    config: TrainConfig, latent: tuple[int, int, int] | None = None, views: int | None = None
) -> list[tuple[str, Plan | None]]:
    """For each of :data:`MEMORY_SIZES`, the layout on the fewest GPUs that train the experiment.

    Args:
        latent: frames, height and width of a sample's latent; None: that of :func:`released_latent`.
        views: of a sample; None: all that the network has.
    """
    from nemo_cosmos.planning.plan import parse_memory, smallest_machine

    size, work = workload_of(config, latent or released_latent(config), views)
    return [
        (
            memory,
            smallest_machine(
                size,
                work,
                config.parallel,
                gpu_memory=parse_memory(memory),
                global_batch=config.data.global_batch,
            ),
        )
        for memory in MEMORY_SIZES
    ]


def machine_name(gpus: int, memory: str) -> str:
    """``4 x 80 GB`` for four GPUs of "80GB"."""
    return f"{gpus} × {memory.removesuffix('GB')} GB"


def runs_on_a_laptop(config: TrainConfig) -> bool:
    """Whether the experiment trains a tiny network for tests and the demo, for which no machine is too small."""
    return "tiny-" in config.model.preset


def _print_smallest_machines() -> None:
    from rich.console import Console
    from rich.table import Table

    from nemo_cosmos.config import TrainConfig, experiment_names, load_config

    console = Console(highlight=False, width=None if sys.stdout.isatty() else 150)
    table = Table(
        title="Smallest machines for 121 frames of 704×1280, or 8 latent frames of every view; GiB on the fullest "
        "GPU, 3 more are kept free",
        title_justify="left",
    )
    for name in ("experiment", "machine", "GiB", "settings"):
        table.add_column(name, justify="right" if name == "GiB" else "left", no_wrap=name != "settings")
    for name in experiment_names():
        config = load_config(TrainConfig, [f"experiment={name}"])
        if runs_on_a_laptop(config):
            table.add_row(name, "a CPU", "", "")
            continue
        for memory, best in smallest_machines(config):
            if best is None:
                table.add_row(name, f"none of {memory}", "", "")
                continue
            gib = f"{best.chosen.total / 2**30:.1f}"
            table.add_row(name, machine_name(best.gpus, memory), gib, " ".join(best.overrides))
    console.print(table)


def _number(key: str, value: str) -> int:
    if not re.fullmatch("[0-9]{1,9}", value) or not 1 <= int(value) <= MOST_GPUS:
        raise InputError(f"{key}={value[:40]}: expected a number from 1 to {MOST_GPUS}")
    return int(value)


def latent_of(text: str, views_text: str, config: TrainConfig) -> tuple[tuple[int, int, int], int, str]:
    """Latent frames, height and width, number of views, and where they come from.

    They come from the texts, else the shards, else the released size.
    """
    network = _network(config)
    views = _number("views", views_text) if views_text else network.num_views
    if views > network.num_views:
        raise InputError(f"views={views}: the network has {network.num_views} (model.overrides.num_views)")
    if text:
        frames, height, width = parse_sides(
            text, 3, f"latent={text[:40]}: expected FRAMESxHEIGHTxWIDTH of the latent, for example 16x88x160"
        )
        if frames % views:
            raise InputError(f"latent={text[:40]}: its {frames} frames do not divide into {views} views (views=N)")
        return (frames, height, width), views, "as given"
    from pathlib import Path

    if (Path(config.data.path) / "manifest.json").is_file():
        from nemo_cosmos.data.shards import ShardDataset

        buckets = ShardDataset(config.data.path, verify="size").buckets
        if not buckets:
            raise InputError(f"data.path={config.data.path}: the dataset holds no samples")
        fullest = max(buckets, key=lambda bucket: math.prod(bucket.shape))
        _, frames, height, width = fullest.shape
        if views_text and views != fullest.num_views:
            raise InputError(
                f"views={views}: the samples of {config.data.path} have {fullest.num_views}; leave it out"
            )
        largest = f"the largest of {len(buckets)} shapes " if len(buckets) > 1 else ""
        return (frames, height, width), fullest.num_views, f"{largest}from {config.data.path}"
    if not network.multiview:
        return RELEASED_LATENT, 1, "121 frames of 704×1280; latent=FRAMESxHEIGHTxWIDTH for others"
    latent = (VIEW_FRAMES * views, *RELEASED_LATENT[1:])
    return (
        latent,
        views,
        f"{VIEW_FRAMES} latent frames a view of 704×1280; latent=FRAMESxHEIGHTxWIDTH views=N for others",
    )


def _shown(plans: list[Plan], best: Plan | None) -> list[Plan]:
    """The fastest that fit, and the recommended one."""
    out = [plan for plan in plans if plan.fits][:SHOWN] or plans[:SHOWN]
    if best is not None and best not in out:
        out[-1] = best
    return out


def recomputation(plan: Plan) -> str:
    """The mode, and of how many layers of a stage where not of all."""
    some = plan.parallel.recompute_layers
    return plan.parallel.recompute if some is None else f"{plan.parallel.recompute} {some}"


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
            *activations, recomputation(plan) if plan.fits else "too large", f"{memory.total / 2**30:.1f}",
            f"{plan.tflops / fastest:.2f}",
            style="bold" if plan is best else None,
        )  # fmt: skip
    return table
