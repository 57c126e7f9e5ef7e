"""The verb `validate`: are these shards fit for training?"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Annotated, Any

import typer

SHOWN = 20


def validate(
    shards: Annotated[
        Path,
        typer.Argument(
            help="Folder of shards from `nemo-cosmos prepare` or of eight files a sample; with --layout a raw dataset."
        ),
    ],
    layout: Annotated[
        str | None,
        typer.Option(
            help="Check a raw dataset of this layout instead: clips, images, waymo, rig, or auto by what lies there."
        ),
    ] = None,
    rig: Annotated[
        str | None,
        typer.Option(help="Check a raw dataset of these cameras: a YAML file, or waymo, av7, av6."),
    ] = None,
) -> None:
    """Check shards: checksums, records, shapes, NaN, duplicate keys, captions, statistics of the latents.

    With --layout or --rig it checks a raw dataset before it is prepared: missing cameras, lengths and rates that
    differ between cameras, files that do not decode, captions.

    Prints what it finds; ends with exit status 2 when the shards, or some clips, are unfit.

    [bold]Example:[/bold] nemo-cosmos validate datasets/hdvila_shards

    [bold]Example:[/bold] nemo-cosmos validate --layout waymo datasets/waymo
    """
    if layout is not None or rig is not None:
        _validate_raw(shards, layout or "auto", rig)
    else:
        _validate_shards(shards)


def _validate_raw(dataset: Path, layout: str, rig: str | None) -> None:
    from rich.progress import Progress

    from nemo_cosmos.errors import InputError
    from nemo_cosmos.prepare.validate_raw import validate_raw

    with Progress(transient=True) as progress:
        task = progress.add_task("looking at the files", total=None)
        found = validate_raw(
            dataset, layout, rig, lambda done, total: progress.update(task, completed=done, total=total)
        )
    cameras = "" if found.rig is None else f" of {len(found.rig.cameras)} cameras ({found.rig})"
    print(f"{dataset}: {found.clips} clips{cameras}, read as {found.kind}")
    if found.frames:
        print(f"frames {_counts(found.frames, 'd')}; fps {_counts(found.fps, 'g')}")
    for camera, sizes in found.sizes.items():
        named = ", ".join(f"{height}x{width} ({count})" for (height, width), count in sizes.most_common())
        print(f"{camera + ': ' if camera else ''}height x width {named}")
    _list("warning", found.warnings)
    _list("error", [str(problem) for problem in found.problems])
    if found.problems:
        raise InputError(f"{dataset}: {found.unusable} of {found.clips} clips cannot be used, for the errors above")
    print("every clip can be used")


def _counts(counted: Counter[Any], form: str) -> str:
    return ", ".join(f"{value:{form}} ({count})" for value, count in sorted(counted.items()))


def _list(title: str, found: list[str]) -> None:
    for line in found[:SHOWN]:
        print(f"{title}: {line}")
    if len(found) > SHOWN:
        print(f"{title}: {len(found) - SHOWN} more")


def _validate_shards(shards: Path) -> None:
    from rich.progress import Progress

    from nemo_cosmos.data.eight_files import EightFileDataset, is_sample_folder
    from nemo_cosmos.data.manifest import MANIFEST_NAME, Manifest
    from nemo_cosmos.errors import InputError
    from nemo_cosmos.precision import short_name
    from nemo_cosmos.prepare.validate import validate as run

    folder = None
    if not (shards / MANIFEST_NAME).is_file():
        if is_sample_folder(shards):
            folder = EightFileDataset(shards, check=False)
        elif any((shards / name).is_dir() for name in ("videos", "images")):
            raise InputError(
                f"{shards} holds no shards but a raw dataset: check it with --layout auto, or prepare it first"
            )
    manifest = Manifest.load(shards) if folder is None else None
    with Progress(transient=True) as progress:
        task = progress.add_task("validating", total=None)
        report = run(shards, lambda done, total: progress.update(task, completed=done, total=total))
    if manifest is not None:
        print(
            f"{shards}: {report.samples} samples in {len(manifest.shards)} shards, {len(manifest.skipped)} clips "
            "skipped"
        )
        print(f"tokenizer {manifest.tokenizer}, text encoder {manifest.text_encoder}")
    elif folder is not None:
        print(f"{shards}: {report.samples} samples of eight files each")
        made_by = folder.tokenizer or "not recorded"
        print(f"tokenizer {made_by}, text encoder {folder.text_encoder or 'not recorded'}")
    several = len(report.shapes) > 1
    shapes = ", ".join(f"{shape}" + f" ({count})" * several for shape, count in sorted(report.shapes.items()))
    rates = ", ".join(f"{rate:g} ({count})" for rate, count in sorted(report.fps.items()))
    if manifest is not None:
        precisions = ", ".join(map(short_name, manifest.latent_dtypes))
        print(f"latents {shapes} {precisions}; frames {manifest.num_frames}; fps {rates}")
    else:
        print(f"latents {shapes}; fps {rates}")
    if report.views:
        views = ", ".join(f"{list(ids)} ({count})" for ids, count in report.views.most_common())
        print(f"views {views}")
    if report.samples:
        mean, std = report.latents.mean, report.latents.std
        print(
            f"latent mean per channel {float(mean.min()):.3f} to {float(mean.max()):.3f}, standard deviation "
            f"{float(std.min()):.3f} to {float(std.max()):.3f}"
        )
        tokens = sorted(report.tokens.elements())
        print(
            f"text tokens {tokens[0]} to {tokens[-1]}, median {tokens[len(tokens) // 2]}; "
            f"{report.distinct_captions} different captions"
        )
    _list("warning", report.warnings)
    _list("error", report.errors)
    if report.errors:
        raise InputError(f"{shards} is unfit for training: {len(report.errors)} errors, listed above")
    print("fit for training")
