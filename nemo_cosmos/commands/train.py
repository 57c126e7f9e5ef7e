"""The verb `train`."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from nemo_cosmos.commands.options import OriginalConfig, explain_config_file


def train(
    overrides: Annotated[
        list[str],
        typer.Argument(metavar="KEY=VALUE", help="experiment=NAME, and any setting that differs."),
    ],
    dryrun: Annotated[
        bool, typer.Option("--dryrun", help="Print the resolved configuration and stop; nothing is built.")
    ] = False,
    config: OriginalConfig = None,
) -> None:
    """Train or post-train a world model on shards of latents.

    Every setting is a line of conf/train.yaml; `nemo-cosmos experiments` lists the shipped experiments. A run that was
    interrupted continues from its newest checkpoint.

    [bold]Example:[/bold] torchrun --nproc_per_node=8 -m nemo_cosmos train experiment=video2world_7b_example_hdvila trainer.max_steps=1000
    """  # noqa: E501
    from nemo_cosmos.config import TrainConfig, dump_config, load_config

    explain_config_file(config)
    settings = load_config(TrainConfig, overrides)
    if dryrun:
        print(dump_config(settings), end="")
        return
    trainer = settings.trainer
    if "WORLD_SIZE" not in os.environ and (trainer.devices or 1) > 1 and (trainer.num_nodes or 1) == 1:
        launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={trainer.devices}"]
        os.execv(sys.executable, [sys.executable, *launcher, "-m", "nemo_cosmos", "train", *overrides])
    from nemo_cosmos.interface import train as run

    run(settings)
