"""The verbs `camera show | presets`: look at a trajectory before a clip is made along it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nemo_cosmos.choices import Fit, TemporalMapping
from nemo_cosmos.commands.options import parse_size
from nemo_cosmos.errors import InputError, require_range, require_replaceable

app = typer.Typer(help="Look at camera trajectories.", no_args_is_help=True, rich_markup_mode="rich")
MOST_FRAMES = 1025
LARGEST_SIDE = 4096
MULTIPLE = 8
"""Pixels per latent cell: sides are multiples of it."""


@app.command(no_args_is_help=True)
def show(
    trajectory: Annotated[
        str,
        typer.Argument(
            help="A preset (orbit_left:0.3, dolly_in+crane_up:0.2, ...), a transforms.json, a .csv of poses, or a "
            "folder with a COLMAP model."
        ),
    ],
    out: Annotated[Path, typer.Option(help="Picture to write, .png or .jpg.")] = Path("trajectory.png"),
    frames: Annotated[int, typer.Option(help="Frames of the clip: 1 + a multiple of 8.")] = 57,
    size: Annotated[str, typer.Option(help="HEIGHTxWIDTH of the clip in pixels.")] = "704x1280",
    fit: Annotated[Fit, typer.Option(help="How pictures of the pose file's size fill the clip's.")] = "crop",
    fps: Annotated[
        float | None, typer.Option(help="Of the clip, where poses have times: they are interpolated.")
    ] = None,
    start: Annotated[int, typer.Option(help="First pose of a file that is taken.")] = 0,
    fov: Annotated[
        float, typer.Option(help="Degrees from left to right, where no file says the focal length.")
    ] = 90.0,
    mapping: Annotated[TemporalMapping, typer.Option(help="Which frames' rays a latent frame is given.")] = "last",
) -> None:
    """Draw the cameras of a trajectory, and the channels of the rays that a network is given of it.

    [bold]Example:[/bold] nemo-cosmos camera show orbit_left:30deg+crane_up:0.2 --out trajectory.png
    """
    sides = parse_size(size)
    require_range("--frames", frames, 1, MOST_FRAMES)
    require_range("--start", start, 0, 1 << 40)
    require_range("--fps", fps, 1e-3, 1e3)
    require_range("--fov", fov, 1, 175)
    if sides[0] % MULTIPLE or sides[1] % MULTIPLE or max(sides) > LARGEST_SIDE:
        raise InputError(f"--size {size}: expected multiples of {MULTIPLE} up to {LARGEST_SIDE}, for example 704x1280")
    if start and not Path(trajectory).exists():
        raise InputError(f"--start {start}: {trajectory[:60]!r} is no file, which alone has poses to leave out")
    require_replaceable(out)
    from nemo_cosmos.camera.latent_frames import num_latent_frames
    from nemo_cosmos.camera.plot import summary, write_plot
    from nemo_cosmos.camera.rays import normalise
    from nemo_cosmos.camera.stored import stored_rays
    from nemo_cosmos.camera.trajectories import read_trajectory
    from nemo_cosmos.logs import log_shown

    latent = (num_latent_frames(frames), sides[0] // MULTIPLE, sides[1] // MULTIPLE)
    with log_shown():
        cameras = read_trajectory(trajectory, frames, sides, fit=fit, fps=fps, start=start, fov=fov)
    chunk, _ = normalise(cameras)
    write_plot(out, cameras, stored_rays(chunk.poses, chunk.intrinsics, sides, latent, mapping))
    print(summary(cameras))
    print(f"{out}: trajectory and rays")


@app.command()
def presets() -> None:
    """List the trajectories that have names, with their amounts and options.

    [bold]Example:[/bold] nemo-cosmos camera presets
    """
    from rich.console import Console
    from rich.table import Table

    from nemo_cosmos.camera.presets import EASINGS, PRESETS

    units = {"angle": "radians, or 30deg", "length": "a length", "zoom": "0.5: focal length x 1.5", "none": ""}
    table = Table(title="NAME[:AMOUNT][,OPTION=VALUE], several at once joined by +", title_justify="left")
    for column in ("name", "the camera", "amount", "default", "options"):
        table.add_column(column, no_wrap=True)
    for name, preset in PRESETS.items():
        options = ", ".join(f"{key}={value:g}" for key, value in preset.options.items())
        default = "" if preset.kind == "none" else f"{preset.amount:g}"
        table.add_row(name, preset.about, units[preset.kind], default, options)
    Console(width=140).print(table)
    print(f"every one also takes ease={'|'.join(EASINGS)}")


@app.command()
def check(
    rooms: Annotated[int, typer.Option(help="Ray-cast rooms to measure, each with another way through it.")] = 6,
    frames: Annotated[int, typer.Option(help="Frames of each way.")] = 57,
    seed: Annotated[int, typer.Option(help="Of rooms and ways.")] = 0,
) -> None:
    """Measure rays against rooms of known shape: how far points seen in two frames are from the rays of both.

    Exit status 1 where a distance is over 1e-4 of the point's distance.

    [bold]Example:[/bold] nemo-cosmos camera check --rooms 6
    """
    from nemo_cosmos.bench.reprojection import REQUIRED, reprojection

    results = reprojection(rooms, frames, seed)
    for number, found in enumerate(results):
        print(
            f"room {number}, {found.kind}, {found.fit}: {found.points} points seen in two frames, "
            f"distance from both rays at most {found.largest:.1e}, mean {found.mean:.1e}"
        )
    largest = max(found.largest for found in results)
    print(f"largest distance / distance from the camera: {largest:.1e} (required: {REQUIRED:g})")
    if largest > REQUIRED:
        raise typer.Exit(1)
