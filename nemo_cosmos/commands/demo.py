"""The verb `demo`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer


def demo(
    data: Annotated[
        Path | None,
        typer.Option(
            help="Folder of videos (*.mp4) and captions (*.txt) to use.", show_default="clips rendered on the spot"
        ),
    ] = None,
    output: Annotated[Path, typer.Option(help="Folder of everything that the demo writes.")] = Path("outputs/demo"),
    size: Annotated[
        Literal["full", "smoke"],
        typer.Option(help="`smoke` takes a few steps of each kind: does the chain hold, not is it good."),
    ] = "full",
    checkpoint_dir: Annotated[
        Path | None,
        typer.Option(help="Weights to start from, in the layout of nemo-cosmos-tiny.", show_default="that one"),
    ] = None,
) -> None:
    """Post-train a small world model on a machine without a GPU: clips, shards, trainings, generated video, report.

    Runs the other verbs one after the other. What an earlier call finished is not done again, and an interrupted
    step goes on where it was. Ends with OUTPUT/report.html.

    [bold]Example:[/bold] nemo-cosmos demo --data my_clips
    """
    from nemo_cosmos.demo.run import SIZES, run_demo

    run_demo(output, data, SIZES[size], checkpoint_dir)
