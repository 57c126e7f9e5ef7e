"""The verb `convert`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nemo_cosmos.choices import Precision, Verify, WeightsForm, WeightsWritten
from nemo_cosmos.ending import report_to
from nemo_cosmos.errors import InputError
from nemo_cosmos.typed import parse_yaml


def convert(
    source: Annotated[Path, typer.Argument(help="A .pt file, a run folder or one save of it, or a diffusers folder.")],
    target: Annotated[Path, typer.Argument(help="The .pt file or the folder to write.")],
    to: Annotated[
        WeightsForm | None,
        typer.Option(help="What to write; a target that ends in .pt needs no word."),
    ] = None,
    weights: Annotated[
        WeightsWritten,
        typer.Option(help="Average or regular weights of a run, or of a file that has both; both: into one .pt file."),
    ] = "ema",
    step: Annotated[int | None, typer.Option(help="Which save of a run; by default the newest.")] = None,
    preset: Annotated[
        str | None, typer.Option(help="The network of a .pt file outside a run folder, e.g. predict1-7b-video2world.")
    ] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="A field of that network; repeatable.")
    ] = None,
    adapter: Annotated[
        list[str] | None,
        typer.Option(
            help="Adapters to merge into the weights: a PEFT folder, .safetensors or .pt file, PATH:0.7 for a part of "
            "them; repeatable.",
            metavar="PATH[:WEIGHT]",
        ),
    ] = None,
    lora_alpha: Annotated[
        float | None,
        typer.Option(
            help="Alpha of adapters whose file does not say it, the source's included; by default their rank."
        ),
    ] = None,
    dtype: Annotated[Precision | None, typer.Option(help="Of the weights; by default as they are.")] = None,
    vae: Annotated[
        Path | None,
        typer.Option(help="Pipeline: a tokenizer folder, or diffusers' own (AutoencoderKLWan for Predict2)."),
    ] = None,
    text_encoder: Annotated[
        str | None, typer.Option(help="Pipeline: a T5 encoder with its tokenizer, e.g. google-t5/t5-11b.")
    ] = None,
    verify: Annotated[
        Verify,
        typer.Option(help="Compare what is read with the checksums beside it: all, sizes alone, or all up to 64 GiB."),
    ] = "auto",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a target that exists.")] = False,
) -> None:
    """Convert weights between original .pt, run folder and diffusers; adapters of a run are merged.

    Runs in one process, without a GPU, whatever layout the run had.

    [bold]Examples:[/bold]

    nemo-cosmos convert checkpoints/posttraining/diffusion_video2world/video2world_7b_example_hdvila model.pt --weights ema

    nemo-cosmos convert model.pt transformer --to diffusers --preset predict1-7b-video2world
    """  # noqa: E501
    if to is None:
        if target.suffix != ".pt":
            raise InputError(f"{target}: say what to write with --to run, --to diffusers or --to pipeline")
        to = "pt"
    from nemo_cosmos.checkpoint.convert import convert as run
    from nemo_cosmos.logs import log_shown
    from nemo_cosmos.precision import to_dtype

    overrides = {}
    for setting in set_ or []:
        key, equals, value = setting.partition("=")
        if not equals:
            raise InputError(f"--set {setting}: expected KEY=VALUE, for example num_layers=4")
        overrides[key] = parse_yaml(value, f"--set {key}")
    if overrides and preset is None:
        raise InputError("--set changes fields of --preset, which is missing")
    report_to(target.parent)
    with log_shown():
        report = run(
            source,
            target,
            to,
            weights=weights,
            step=step,
            preset=preset,
            overrides=overrides,
            adapter=adapter,
            lora_alpha=lora_alpha,
            dtype=None if dtype is None else to_dtype(dtype),
            vae=vae,
            text_encoder=text_encoder,
            overwrite=overwrite,
            verify=verify,
        )
    print(f"{source}: {report}")
    print(f"written: {target}")
