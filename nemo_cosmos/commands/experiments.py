"""The verb `experiments`: which experiments are shipped, and what one resolves to."""

from __future__ import annotations

import sys
from typing import Annotated, Literal

import typer

app = typer.Typer(invoke_without_command=True, rich_markup_mode="rich")


@app.callback()
def experiments(context: typer.Context) -> None:
    """List the shipped experiments: network, parameters, processes and data of each.

    [bold]Example:[/bold] nemo-cosmos experiments
    """
    if context.invoked_subcommand is not None:
        return
    import torch
    from rich.console import Console
    from rich.table import Table

    from nemo_cosmos.config import TrainConfig, experiment_names, load_config
    from nemo_cosmos.models.dit import DiTConfig, build_dit

    table = Table(title="Experiments of `nemo-cosmos train experiment=NAME`")
    for column in ("name", "network", "parameters", "trains", "processes", "data"):
        justify: Literal["left", "right"] = "right" if column in ("parameters", "processes") else "left"
        table.add_column(column, justify=justify, overflow="fold", no_wrap=column in ("name", "parameters"))
    for name in experiment_names():
        config = load_config(TrainConfig, [f"experiment={name}"])
        with torch.device("meta"):
            network = build_dit(DiTConfig.preset(config.model.preset, **config.model.overrides))
        table.add_row(
            name,
            config.model.preset,
            f"{sum(p.numel() for p in network.parameters()):,}",
            f"adapters of rank {config.lora.rank}" if config.lora.enabled else "all weights",
            str(config.trainer.devices * config.trainer.num_nodes),
            config.data.path,
        )
    # Written to a file or pipe, the table keeps whole names instead of folding to the 80 columns assumed there.
    Console(width=None if sys.stdout.isatty() else 150).print(table)


@app.command(no_args_is_help=True)
def show(
    name: Annotated[str, typer.Argument(help="Name of a shipped experiment.")],
    overrides: Annotated[list[str] | None, typer.Argument(metavar="[KEY=VALUE]...")] = None,
) -> None:
    """Print an experiment with every setting resolved, as YAML.

    [bold]Example:[/bold] nemo-cosmos experiments show video2world_7b_example_hdvila parallel.context=4
    """
    from nemo_cosmos.config import TrainConfig, dump_config, load_config

    print(dump_config(load_config(TrainConfig, [f"experiment={name}", *(overrides or [])])), end="")
