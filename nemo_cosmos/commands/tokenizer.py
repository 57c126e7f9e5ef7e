"""The verbs `tokenizer train | stats | export | eval`."""

from __future__ import annotations

from typing import Annotated

import typer

app = typer.Typer(
    help="Train, export and measure the Cosmos video tokenizers.", no_args_is_help=True, rich_markup_mode="rich"
)


@app.command(no_args_is_help=True)
def train(
    overrides: Annotated[
        list[str],
        typer.Argument(metavar="experiment=NAME [KEY=VALUE]...", help="The experiment, and settings that differ."),
    ],
    dryrun: Annotated[
        bool, typer.Option("--dryrun", help="Print the resolved configuration and stop; nothing is built.")
    ] = False,
) -> None:
    """Train or post-train a tokenizer on videos.

    Every setting is a line of conf/tokenizer_train.yaml. A run that was interrupted continues exactly.

    [bold]Example:[/bold] torchrun --nproc_per_node=8 -m nemo_cosmos tokenizer train experiment=Cosmos_Tokenize1_CV8x8x8_720p_HDVILA trainer.max_steps=1000
    """  # noqa: E501
    from nemo_cosmos.config import dump_config, load_config
    from nemo_cosmos.training.tokenizer.config import TokenizerTrainConfig

    config = load_config(TokenizerTrainConfig, overrides, root="tokenizer_train")
    if dryrun:
        print(dump_config(config), end="")
        return
    from nemo_cosmos.training.tokenizer.trainer import train as run

    print(f"tokenizer written to {run(config)}")
