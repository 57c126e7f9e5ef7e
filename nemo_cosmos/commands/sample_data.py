"""The verb `sample-data`: rendered clips with true captions, to try everything without a download."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nemo_cosmos.commands.options import LARGEST_SEED, parse_size
from nemo_cosmos.errors import require_range


def sample_data(
    out: Annotated[Path, typer.Argument(help="Folder to write: train/ and held_out/, each with videos/ and metas/.")],
    clips: Annotated[int, typer.Option(help="Clips to train on.")] = 64,
    held_out: Annotated[int, typer.Option(help="Clips kept apart for evaluation.")] = 8,
    size: Annotated[str, typer.Option(help="HEIGHTxWIDTH in pixels, both even.")] = "128x128",
    frames: Annotated[int, typer.Option(help="Frames per clip.")] = 17,
    fps: Annotated[float, typer.Option(help="Frames per second.")] = 8.0,
    seed: Annotated[int, typer.Option(help="The same seed renders the same files.")] = 0,
) -> None:
    """Render short clips of moving shapes with captions that name the motion.

    A second call with the same options keeps what is there and renders what is missing.

    [bold]Example:[/bold] nemo-cosmos sample-data datasets/shapes --clips 256 --held-out 8
    """
    from rich.progress import track

    from nemo_cosmos.prepare.sample_data import SampleDataSettings, render_sample_data

    require_range("--clips", clips, 1, 1_000_000)
    require_range("--held-out", held_out, 0, 1_000_000)
    require_range("--frames", frames, 2, 10_000)
    require_range("--fps", fps, 0.01, 1000)
    require_range("--seed", seed, 0, LARGEST_SEED)
    settings = SampleDataSettings(clips, held_out, parse_size(size), frames, fps, seed)
    for _ in track(render_sample_data(out, settings), "rendering", total=clips + held_out):
        pass
    print(f"{clips} clips in {out}/train, {held_out} in {out}/held_out: {frames} frames of {size} at {fps:g} fps")
