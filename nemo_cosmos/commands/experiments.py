"""The verb `experiments`: which experiments are shipped, and what one resolves to."""

from __future__ import annotations

import dataclasses
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from nemo_cosmos.config import TrainConfig

app = typer.Typer(invoke_without_command=True, rich_markup_mode="rich")

COLUMNS = ("name", "network", "parameters", "trains", "processes", "smallest machine", "data")


@app.callback()
def experiments(context: typer.Context) -> None:
    """List the shipped experiments: network, parameters, processes, smallest machine (`plan --experiments`) and data.

    [bold]Example:[/bold] nemo-cosmos experiments
    """
    if context.invoked_subcommand is not None:
        return
    from rich.console import Console
    from rich.table import Table

    # Written to a file or pipe, the tables keep whole names instead of folding to the 80 columns assumed there.
    console = Console(width=None if sys.stdout.isatty() else 180)
    for title, rows in (
        ("nemo-cosmos train experiment=NAME", _world_models()),
        ("nemo-cosmos tokenizer train experiment=NAME", _tokenizers()),
    ):
        table = Table(title=title, title_justify="left")
        for column in COLUMNS:
            number = column in ("parameters", "processes")
            table.add_column(
                column,
                justify="right" if number else "left",
                overflow="fold",
                no_wrap=column in ("name", "parameters"),
            )
        for row in rows:
            table.add_row(*row)
        console.print(table)


@app.command(no_args_is_help=True)
def show(
    name: Annotated[str, typer.Argument(help="Name of a shipped experiment.")],
    overrides: Annotated[list[str] | None, typer.Argument(metavar="[KEY=VALUE]...")] = None,
) -> None:
    """Print an experiment with every setting resolved, as YAML.

    [bold]Example:[/bold] nemo-cosmos experiments show video2world_7b_example_hdvila parallel.context=4
    """
    from nemo_cosmos.config import dump_config

    print(dump_config(_resolved(name, overrides or [])), end="")


@app.command(no_args_is_help=True)
def diff(
    first: Annotated[str, typer.Argument(help="Name of a shipped experiment.")],
    second: Annotated[str, typer.Argument(help="Name of another.")],
) -> None:
    """Print the settings in which two experiments differ, one a line.

    [bold]Example:[/bold] nemo-cosmos experiments diff text2world_7b_example_hdvila video2world_7b_example_hdvila
    """
    from rich.console import Console
    from rich.table import Table

    settings = [_flat(dataclasses.asdict(_resolved(name, []))) for name in (first, second)]
    table = Table(title_justify="left")
    for column in ("setting", first, second):
        table.add_column(column, overflow="fold")
    for key in dict.fromkeys([*settings[0], *settings[1]]):
        values = [str(values.get(key, "")) for values in settings]
        if values[0] != values[1]:
            table.add_row(key, *values)
    console = Console(width=None if sys.stdout.isatty() else 180)
    console.print(table if table.rows else f"{first} and {second} have the same settings")


def _resolved(name: str, overrides: list[str]) -> Any:
    """The settings of an experiment of a world model or a tokenizer."""
    from nemo_cosmos.config import TrainConfig, experiment_names, load_config

    arguments = [f"experiment={name}", *overrides]
    if name in experiment_names("tokenizer_train"):
        from nemo_cosmos.training.tokenizer.config import TokenizerTrainConfig

        return load_config(TokenizerTrainConfig, arguments, root="tokenizer_train")
    return load_config(TrainConfig, arguments)


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Settings by dotted name."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, dict) and value:
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value
    return flat


def _world_models() -> list[tuple[str, ...]]:
    import torch

    from nemo_cosmos.config import TrainConfig, experiment_names, load_config
    from nemo_cosmos.models.dit import DiTConfig, build_dit

    rows: list[tuple[str, ...]] = []
    for name in experiment_names():
        config = load_config(TrainConfig, [f"experiment={name}"])
        with torch.device("meta"):
            network = build_dit(DiTConfig.preset(config.model.preset, **config.model.overrides))
        trains = f"adapters of rank {config.lora.rank}" if config.lora.enabled else "all weights"
        parallel = config.parallel
        split = parallel.tensor * parallel.pipeline * parallel.context
        replicas = config.data.global_batch // config.data.micro_batch
        processes = f"multiple of {split}" if split > 1 else f"up to {replicas}"
        rows.append(
            (name, config.model.preset, _count(network), trains, processes, _machine(config), config.data.path)
        )
    return rows


def _tokenizers() -> list[tuple[str, ...]]:
    from nemo_cosmos.config import experiment_names, load_config
    from nemo_cosmos.models.tokenizer import build_tokenizer
    from nemo_cosmos.training.tokenizer.config import TokenizerTrainConfig

    rows: list[tuple[str, ...]] = []
    for name in experiment_names("tokenizer_train"):
        config = load_config(TokenizerTrainConfig, [f"experiment={name}"], root="tokenizer_train")
        network = build_tokenizer(config.model.preset, **config.model.overrides)
        processes = f"up to {config.data.global_batch // config.data.micro_batch}"
        row = (name, config.model.preset, _count(network), "all weights", processes, "", config.data.train)
        rows.append(row)
    return rows


def _machine(config: TrainConfig) -> str:
    from nemo_cosmos.commands.plan import machine_name, runs_on_a_laptop, smallest_machines

    if runs_on_a_laptop(config):
        return "a CPU"
    fitting = [(best.gpus, memory) for memory, best in smallest_machines(config) if best is not None]
    # More memory a GPU is worth a word only where it takes fewer of them.
    kept = [pair for i, pair in enumerate(fitting) if all(pair[0] < smaller for smaller, _ in fitting[:i])]
    return " or ".join(machine_name(*pair) for pair in kept)


def _count(network: object) -> str:
    return f"{sum(parameter.numel() for parameter in network.parameters()):,}"  # type: ignore[attr-defined]
