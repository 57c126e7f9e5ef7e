"""The verb `experiments`: which experiments are shipped, and what one resolves to."""

from __future__ import annotations

import dataclasses
import re
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from nemo_cosmos.config import TrainConfig

app = typer.Typer(invoke_without_command=True, rich_markup_mode="rich")

COLUMNS = ("name", "network", "parameters", "trains", "tokens", "GPUs", "smallest machine", "GiB each", "data")
NUMBERS = ("parameters", "tokens", "GPUs", "GiB each")


@app.callback()
def experiments(context: typer.Context) -> None:
    """List the shipped experiments: network, what is trained, tokens of a sample, GPUs, memory and data.

    Tokens are of the clips or images that the experiment's own `prepare` command makes. The smallest machines hold its
    global batch; memory is predicted for the fullest GPU of the first one, and 3 GiB more are kept free.

    [bold]Example:[/bold] nemo-cosmos experiments
    """
    if context.invoked_subcommand is not None:
        return
    from rich.console import Console
    from rich.table import Table

    # Written to a file or pipe, the tables keep whole names instead of folding to the 80 columns assumed there.
    console = Console(width=None if sys.stdout.isatty() else 260)
    for title, rows in (
        ("nemo-cosmos train experiment=NAME", _world_models()),
        ("nemo-cosmos tokenizer train experiment=NAME", _tokenizers()),
    ):
        table = Table(title=title, title_justify="left")
        for column in COLUMNS:
            number = column in NUMBERS
            table.add_column(
                column,
                justify="right" if number else "left",
                overflow="fold",
                no_wrap=column != "data",
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
    console = Console(width=None if sys.stdout.isatty() else 240)
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
    from nemo_cosmos.commands.plan import workload_of
    from nemo_cosmos.config import TrainConfig, experiment_names, load_config

    rows: list[tuple[str, ...]] = []
    for name in experiment_names():
        config = load_config(TrainConfig, [f"experiment={name}"])
        prepared = prepared_latent(name, config)
        latent, views = prepared or ((1, 2, 2), 1)
        size, work = workload_of(config, latent, views)
        trains = f"adapters of rank {config.lora.rank}" if config.lora.enabled else "all weights"
        parallel = config.parallel
        split = parallel.tensor * parallel.pipeline * parallel.context
        replicas = config.data.global_batch // config.data.micro_batch
        gpus = f"{split}" if replicas == 1 else f"{split} to {split * replicas}"
        tokens = "" if prepared is None else f"{work.tokens:,}"
        machine, memory = _machine(config, prepared)
        rows.append(
            (
                name,
                config.model.preset,
                f"{size.parameters:,}",
                trains,
                tokens,
                gpus,
                machine,
                memory,
                config.data.path,
            )
        )
    return rows


def prepared_latent(name: str, config: TrainConfig) -> tuple[tuple[int, int, int], int] | None:
    """Latents that the command in an experiment's comment prepares: (frames of all views, height, width), and views.

    An experiment without such a command has those of the one it starts from; None where none of them has.
    """
    from nemo_cosmos.config import experiment_file
    from nemo_cosmos.data.rig import read_rig
    from nemo_cosmos.models.dit.config import DiTConfig

    text = experiment_file(name).read_text(encoding="utf-8")
    clip = re.search(r"--frames (\d+) --size (\d+)x(\d+)", text)
    if clip is not None:
        frames, height, width = map(int, clip.groups())
    elif "tools/prepare_dataset.py" in text:
        frames, height, width = 57, 704, 1280  # What the tool makes where nothing else is said.
    else:
        base = re.search(r"^defaults:\n  - (\w+)$", text, re.MULTILINE)
        return prepared_latent(base[1], config) if base else None
    rate = re.match(r"CV(\d+)x(\d+)x", config.data.tokenizer or ("" if clip is not None else "CV8x8x8"))
    time, space = map(int, rate.groups()) if rate else (4, 8)  # Wan2.1-VAE, of Predict2
    views = DiTConfig.preset(config.model.preset, **config.model.overrides).num_views
    if views > 1 and (rig := re.search(r"--(?:layout|rig) (\w+)", text)):
        views = len(read_rig(rig[1]).cameras)
    return ((1 + (frames - 1) // time) * views, height // space, width // space), views


def _tokenizers() -> list[tuple[str, ...]]:
    from nemo_cosmos.config import experiment_names, load_config
    from nemo_cosmos.models.tokenizer import build_tokenizer
    from nemo_cosmos.training.tokenizer.config import TokenizerTrainConfig

    rows: list[tuple[str, ...]] = []
    for name in experiment_names("tokenizer_train"):
        config = load_config(TokenizerTrainConfig, [f"experiment={name}"], root="tokenizer_train")
        network = build_tokenizer(config.model.preset, **config.model.overrides)
        replicas = config.data.global_batch // config.data.micro_batch
        gpus = f"1 to {replicas}" if replicas > 1 else "1"
        row = (name, config.model.preset, _count(network), "all weights", "", gpus, "", "", config.data.train)
        rows.append(row)
    return rows


def _machine(config: TrainConfig, prepared: tuple[tuple[int, int, int], int] | None) -> tuple[str, str]:
    """The smallest machines by name, and the GiB that the first one's fullest GPU holds."""
    from nemo_cosmos.commands.plan import machine_name, runs_on_a_laptop, smallest_machines

    if runs_on_a_laptop(config):
        return "a CPU", ""
    fitting = [(best, memory) for memory, best in smallest_machines(config, *(prepared or ())) if best is not None]
    # More memory a GPU is worth a word only where it takes fewer of them.
    kept = [(b, m) for i, (b, m) in enumerate(fitting) if all(b.gpus < smaller.gpus for smaller, _ in fitting[:i])]
    gib = f"{kept[0][0].chosen.total / 2**30:.0f}" if kept else ""
    return " or ".join(machine_name(best.gpus, memory) for best, memory in kept), gib


def _count(network: object) -> str:
    return f"{sum(parameter.numel() for parameter in network.parameters()):,}"  # type: ignore[attr-defined]
