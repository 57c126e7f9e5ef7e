"""The verbs `tokenizer train | stats | export`."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from nemo_cosmos.choices import TokenizerForm, Verify
from nemo_cosmos.commands.options import LARGEST_SIDE, OriginalConfig, explain_config_file
from nemo_cosmos.ending import report_to
from nemo_cosmos.errors import require_range

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
    config: OriginalConfig = None,
) -> None:
    """Train or post-train a tokenizer on videos.

    Every setting is a line of conf/tokenizer_train.yaml. A run that was interrupted continues exactly.

    [bold]Example:[/bold] torchrun --nproc_per_node=8 -m nemo_cosmos tokenizer train experiment=Cosmos_Tokenize1_CV8x8x8_720p_HDVILA trainer.max_steps=1000
    """  # noqa: E501
    from nemo_cosmos.config import dump_config, load_config
    from nemo_cosmos.training.tokenizer.config import TokenizerTrainConfig

    explain_config_file(config)
    settings = load_config(TokenizerTrainConfig, overrides, root="tokenizer_train")
    if dryrun:
        print(dump_config(settings), end="")
        return
    report_to(settings.output_dir)
    from nemo_cosmos.logs import log_shown
    from nemo_cosmos.training.tokenizer.trainer import train as run

    with log_shown():
        written = run(settings)
    if int(os.environ.get("RANK", "0")) == 0:
        print(f"tokenizer written to {written}")


@app.command(no_args_is_help=True)
def stats(
    tokenizer: Annotated[str, typer.Option(help="Tokenizer folder; latent_stats.json is written into it.")],
    videos: Annotated[str, typer.Option(help="Glob of videos, or a registered name such as hdvila_video720.")],
    max_clips: Annotated[int, typer.Option(help="Clips at most, one per video.")] = 256,
    height: Annotated[int, typer.Option(help="Height of the centre crop, pixels.")] = 256,
    width: Annotated[int, typer.Option(help="Width of the centre crop, pixels.")] = 256,
    resolution: Annotated[int | None, typer.Option(help="Resize to cover this class (256 … 1080) first.")] = None,
    device: Annotated[str, typer.Option(help="auto (a GPU when there is one), cpu, cuda or cuda:N.")] = "auto",
    verify: Annotated[
        Verify,
        typer.Option(help="Compare the tokenizer with its checksums: all, sizes alone, or all up to 64 GiB."),
    ] = "auto",
) -> None:
    """Mean and std of a tokenizer's latents per channel and latent frame, which diffusion training needs.

    [bold]Example:[/bold] nemo-cosmos tokenizer stats --tokenizer my_tokenizer --videos "clips/*.mp4"
    """
    from pathlib import Path

    from nemo_cosmos.logs import log_shown
    from nemo_cosmos.prepare.device import resolve_device
    from nemo_cosmos.training.tokenizer.stats import measure_folder

    require_range("--max-clips", max_clips, 1, 1_000_000)
    for flag, side in (("--height", height), ("--width", width), ("--resolution", resolution)):
        require_range(flag, side, 8, LARGEST_SIDE)
    place = resolve_device(device)
    with log_shown():
        written = measure_folder(
            Path(tokenizer),
            videos,
            max_clips=max_clips,
            crop=(height, width),
            resolution=resolution,
            device=place,
            verify_files=verify,
        )
    print(f"statistics written to {written}")


@app.command(no_args_is_help=True)
def export(
    source: Annotated[
        str, typer.Argument(help="Tokenizer folder, Wan's tokenizer.pth, or an iter_*.pt, .safetensors or .jit file.")
    ],
    target: Annotated[str, typer.Argument(help="Folder to write.")],
    form: Annotated[TokenizerForm, typer.Option("--format", help="What to write.")] = "folder",
    name: Annotated[str | None, typer.Option(help="Name of a file's tokenizer, for example CV8x8x8-720p.")] = None,
    regular: Annotated[
        bool, typer.Option("--reg", help="Regular instead of averaged weights, where there are both.")
    ] = False,
    verify: Annotated[
        Verify,
        typer.Option(help="Compare the source with the checksums beside it: all, sizes alone, or all up to 64 GiB."),
    ] = "auto",
) -> None:
    """Turn a checkpoint into a tokenizer folder, TorchScript files, or a folder of diffusers.

    A Wan VAE goes from its tokenizer.pth to diffusers' AutoencoderKLWan and back (--format folder).

    [bold]Example:[/bold] nemo-cosmos tokenizer export nemo-cosmos-tiny my_vae --format diffusers
    """
    from pathlib import Path

    from nemo_cosmos.logs import log_shown
    from nemo_cosmos.training.tokenizer.export import export as run

    with log_shown():
        written = run(Path(source), Path(target), form=form, name=name, regular=regular, verify_files=verify)
    print(*written, sep="\n")
