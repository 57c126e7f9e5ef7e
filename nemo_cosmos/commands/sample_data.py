"""The verb `sample-data`: rendered clips with true captions, to try everything without a download."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from nemo_cosmos.choices import ScenePacking
from nemo_cosmos.commands.options import LARGEST_SEED, parse_size
from nemo_cosmos.errors import InputError, require_range

Clips = Annotated[int, typer.Option(help="Clips to train on.")]
Seed = Annotated[int, typer.Option(help="The same seed renders the same files.")]
Supersample = Annotated[int, typer.Option(help="Rays per pixel in both directions; more make smoother edges.")]


def sample_data(
    out: Annotated[Path, typer.Argument(help="Folder to write: train/ and held_out/, each with videos/ and metas/.")],
    clips: Clips = 64,
    held_out: Annotated[int, typer.Option(help="Clips kept apart for evaluation.")] = 8,
    size: Annotated[str, typer.Option(help="HEIGHTxWIDTH in pixels, both even.")] = "128x128",
    frames: Annotated[int, typer.Option(help="Frames per clip.")] = 17,
    fps: Annotated[float, typer.Option(help="Frames per second.")] = 8.0,
    seed: Seed = 0,
) -> None:
    """Render short clips of moving shapes with captions that name the motion.

    A second call with the same options keeps what is there and renders what is missing.

    Scenes in 3-D, with options of their own, come with a word before OUT: [bold]sample-data waymo OUT[/bold] (several
    cameras on a car) and [bold]sample-data dl3dv OUT[/bold] (camera ways through rooms, with poses);
    [bold]sample-data worlds OUT[/bold] mixes many kinds of clips, to train a small model on. A folder of that name is
    ./waymo.

    [bold]Example:[/bold] nemo-cosmos sample-data datasets/shapes --clips 256 --held-out 8
    """
    from nemo_cosmos.prepare.sample_data import SampleDataSettings, render_sample_data

    require_range("--clips", clips, 1, 1_000_000)
    require_range("--held-out", held_out, 0, 1_000_000)
    require_range("--frames", frames, 2, 10_000)
    require_range("--fps", fps, 0.01, 1000)
    require_range("--seed", seed, 0, LARGEST_SEED)
    settings = SampleDataSettings(clips, held_out, parse_size(size), frames, fps, seed)
    _render(render_sample_data(out, settings), clips + held_out)
    print(f"{clips} clips in {out}/train, {held_out} in {out}/held_out: {frames} frames of {size} at {fps:g} fps")


def waymo(
    out: Annotated[Path, typer.Argument(help="Folder to write: videos/CAMERA/CLIP.mp4 and metas/CAMERA/CLIP.txt.")],
    clips: Clips = 8,
    held_out: Annotated[
        int, typer.Option(help="Clips kept apart; OUT/train and OUT/held_out are then two such folders.")
    ] = 0,
    cameras: Annotated[
        int | None,
        typer.Option(help="A rig of this many cameras, 1 to 12, with its rig.yaml.", show_default="Waymo's five"),
    ] = None,
    size: Annotated[str, typer.Option(help="HEIGHTxWIDTH in pixels, both even.")] = "128x192",
    side_size: Annotated[
        str | None,
        typer.Option(
            help="Size of the two side cameras, which have fewer rows in Waymo (886 of 1280).",
            show_default="as the others",
        ),
    ] = None,
    frames: Annotated[int, typer.Option(help="Frames per clip.")] = 29,
    fps: Annotated[float, typer.Option(help="Frames per second.")] = 10.0,
    supersample: Supersample = 2,
    seed: Seed = 0,
) -> None:
    """Render clips of several cameras on a car in a street, as the public Waymo conversion lays them out.

    Neighbouring cameras overlap and see the same points; cameras/CLIP.json has their intrinsics and poses. A second
    call with the same options keeps what is there and renders what is missing.

    [bold]Example:[/bold] nemo-cosmos sample-data waymo datasets/waymo --clips 16
    """
    from nemo_cosmos.prepare.sample_rig import RigDataSettings, mounted_cameras, render_rig_data

    settings = RigDataSettings(
        clips,
        held_out,
        parse_size(size),
        None if side_size is None else parse_size(side_size),
        frames,
        fps,
        cameras,
        supersample,
        seed,
    )
    _render(render_rig_data(out, settings), clips + held_out)
    views = len(mounted_cameras(settings))
    print(f"{clips} clips{_where(out, held_out)}: {views} cameras, {frames} frames of {size} at {fps:g} fps")


def dl3dv(
    out: Annotated[Path, typer.Argument(help="Folder to write: BATCH/HASH.zip, captions.json and captions.pickle.")],
    scenes: Annotated[int, typer.Option(help="Rooms.")] = 4,
    trajectories_per_scene: Annotated[
        int, typer.Option(help="Camera ways through each room; every one is packed as a scene.")
    ] = 1,
    held_out: Annotated[
        int,
        typer.Option(
            help="Further ways through each room, kept apart; OUT/train and OUT/held_out are then two folders."
        ),
    ] = 0,
    size: Annotated[str, typer.Option(help="HEIGHTxWIDTH of the pictures in pixels.")] = "144x256",
    frames: Annotated[int, typer.Option(help="Pictures of a scene; preparation takes 57 of them.")] = 60,
    image_scale: Annotated[
        int,
        typer.Option(help="transforms.json speaks of pictures this many times as large; theirs are then in images_N."),
    ] = 1,
    packing: Annotated[
        ScenePacking,
        typer.Option(help="zip: a zip file with the folder HASH in it; flat: without it; folder: unpacked."),
    ] = "zip",
    supersample: Supersample = 2,
    seed: Seed = 0,
) -> None:
    """Render ways of a camera through textured rooms, packed as the scenes of DL3DV with their poses.

    Orbits, pans, dollies, cranes and mixtures take turns. A second call with the same options keeps what is there and
    renders what is missing.

    [bold]Example:[/bold] nemo-cosmos sample-data dl3dv datasets/rooms --trajectories-per-scene 16 --held-out 2
    """
    from nemo_cosmos.prepare.sample_dl3dv import RoomDataSettings, render_room_data

    settings = RoomDataSettings(
        scenes,
        trajectories_per_scene,
        held_out,
        parse_size(size),
        frames,
        image_scale,
        packing,
        supersample,
        seed,
    )
    ways, apart = scenes * trajectories_per_scene, scenes * held_out
    _render(render_room_data(out, settings), ways + apart)
    print(f"{ways} scenes{_where(out, apart)}, through {scenes} rooms: {frames} pictures of {size}")


def worlds(
    out: Annotated[Path, typer.Argument(help="Folder to write: train/ and held_out/, and training_list.json.")],
    clips: Clips = 64,
    held_out: Annotated[int, typer.Option(help="Clips kept apart for evaluation.")] = 8,
    size: Annotated[str, typer.Option(help="HEIGHTxWIDTH in pixels, both even.")] = "96x128",
    frames: Annotated[int, typer.Option(help="Frames per clip.")] = 17,
    workers: Annotated[
        int | None,
        typer.Option(help="Processes that render; the files are the same for any number.", show_default="all cores"),
    ] = None,
    without_photos: Annotated[
        bool, typer.Option("--without-photos", help="Only clips that need no photographs, which are fewer kinds.")
    ] = False,
    seed: Seed = 0,
) -> None:
    """Render a mixture of clips to train a small model on: cameras over photographs, cut-outs in motion, robot arms.

    Streets, rooms, patterns and moving shapes besides, at 3 to 30 frames a second. The photographs are those that
    scikit-image and scikit-learn ship: pip install "nemo_cosmos[tiny]". OUT/training_list.json names every clip and
    photograph, with sha256 and licence. A second call with the same options keeps what is there and renders what is
    missing.

    [bold]Example:[/bold] nemo-cosmos sample-data worlds datasets/worlds --clips 2000 --held-out 40
    """
    from nemo_cosmos.prepare.sample_worlds import WorldsSettings, render_worlds, usable_cores

    require_range("--workers", workers, 1, 1024)
    settings = WorldsSettings(clips, held_out, parse_size(size), frames, seed, without_photos)
    _render(render_worlds(out, settings, workers=workers or usable_cores()), clips + held_out)
    print(f"{clips} clips in {out}/train, {held_out} in {out}/held_out: {frames} frames of {size} at 3 to 30 fps")


def _render(clips: Iterable[Path], total: int) -> None:
    from rich.progress import track

    for _ in track(clips, "rendering", total=total):
        pass


def _where(out: Path, held_out: int) -> str:
    return f" in {out}/train, {held_out} in {out}/held_out" if held_out else f" in {out}"


class ByKind(TyperCommand):
    """`sample-data`, and with the name of another kind as its first word the command of that kind."""

    def make_context(self, info_name: str | None, args: list[str], parent: Any = None, **extra: Any) -> Any:
        kind = self.kinds.get(args[0]) if args else None
        if kind is None:
            try:
                return super().make_context(info_name, args, parent, **extra)
            except Exception as error:
                if "extra argument" not in str(getattr(error, "message", "")):
                    raise
                raise InputError(
                    f"sample-data takes a folder, or first a kind ({' or '.join(self.kinds)}) and then a folder; "
                    "nemo-cosmos sample-data --help shows what it takes"
                ) from error
        return kind.make_context(f"{info_name} {args[0]}", args[1:], parent, **extra)

    @property
    def kinds(self) -> dict[str, Any]:
        """Commands by the word that calls them."""
        return typer.main.get_command(_KINDS).commands  # type: ignore[attr-defined]


_KINDS = typer.Typer(rich_markup_mode="rich", add_completion=False, pretty_exceptions_enable=False)
_KINDS.command(no_args_is_help=True)(waymo)
_KINDS.command(no_args_is_help=True)(dl3dv)
_KINDS.command(no_args_is_help=True)(worlds)
