"""The verb `validate`: are these shards fit for training?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

SHOWN = 20


def validate(
    shards: Annotated[
        Path, typer.Argument(help="Folder of shards from `nemo-cosmos prepare`, or of eight files a sample.")
    ],
) -> None:
    """Check shards: checksums, records, shapes, NaN, duplicate keys, captions, statistics of the latents.

    Prints what it finds; ends with exit status 2 when the shards are unfit for training.

    [bold]Example:[/bold] nemo-cosmos validate datasets/hdvila_shards
    """
    from rich.progress import Progress

    from nemo_cosmos.data.eight_files import EightFileDataset, is_sample_folder
    from nemo_cosmos.data.manifest import MANIFEST_NAME, Manifest
    from nemo_cosmos.errors import InputError
    from nemo_cosmos.precision import short_name
    from nemo_cosmos.prepare.validate import validate as run

    folder = None
    if not (shards / MANIFEST_NAME).is_file() and is_sample_folder(shards):
        folder = EightFileDataset(shards, check=False)
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
    for title, found in (("warning", report.warnings), ("error", report.errors)):
        for line in found[:SHOWN]:
            print(f"{title}: {line}")
        if len(found) > SHOWN:
            print(f"{title}: {len(found) - SHOWN} more")
    if report.errors:
        raise InputError(f"{shards} is unfit for training: {len(report.errors)} errors, listed above")
    print("fit for training")
