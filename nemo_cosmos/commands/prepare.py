"""The verb `prepare`: clips and captions into shards of latents and text embeddings."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nemo_cosmos.choices import Captions, Fit, Split, Verify
from nemo_cosmos.commands.options import LARGEST_SIDE, parse_sizes
from nemo_cosmos.errors import require_range


def prepare(
    source: Annotated[
        Path,
        typer.Argument(
            help="Folder with videos/ and metas/ (Cosmos layout), folder of videos with *.txt, or .jsonl file; or the "
            "same with images/ and images; or videos/CAMERA/ and metas/CAMERA/ of several cameras."
        ),
    ],
    out: Annotated[Path, typer.Argument(help="Folder of shards to write; an interrupted call goes on in it.")],
    tokenizer: Annotated[Path, typer.Option(help="Folder of the video tokenizer, or Wan's tokenizer.pth.")],
    text_encoder: Annotated[
        str | None,
        typer.Option(
            help="T5 folder or Hugging Face repository that embeds the captions, for example google-t5/t5-11b. "
            "Without it the embeddings in SOURCE/t5_xxl are used."
        ),
    ] = None,
    frames: Annotated[
        int | None,
        typer.Option(
            help="Pixel frames per sample: 1 + k times the temporal compression.",
            show_default="121, of images 1, of Waymo 29",
        ),
    ] = None,
    size: Annotated[
        str | None,
        typer.Option(
            help="HEIGHTxWIDTH in pixels; several with commas, for example 704x1280,1280x704,960x960: each clip takes "
            "the one whose shape is nearest to its own.",
            show_default="704x1280",
        ),
    ] = None,
    fit: Annotated[
        Fit | None,
        typer.Option(
            help="How a clip of another shape fills the size: crop (cut the middle), pad (bars), stretch.",
            show_default="crop, of Waymo stretch",
        ),
    ] = None,
    fps: Annotated[
        float | None,
        typer.Option(help="Resample to this rate.", show_default="each clip's own, of Waymo 10"),
    ] = None,
    step: Annotated[int, typer.Option(help="Take every n-th frame.")] = 1,
    stride: Annotated[
        int, typer.Option(help="Frames between the windows of a long clip; 0: its first window alone.")
    ] = 0,
    keep_removed: Annotated[
        bool, typer.Option("--keep-removed", help="Keep the samples of clips that are no longer in SOURCE.")
    ] = False,
    keep_damaged: Annotated[
        bool,
        typer.Option(
            "--keep-damaged",
            help="Take clips with lost packets or combed frames as they decode; default: left out.",
        ),
    ] = False,
    default_caption: Annotated[str | None, typer.Option(help="Caption of clips that have none.")] = None,
    text_length: Annotated[int, typer.Option(help="Text tokens kept.")] = 512,
    latent_dtype: Annotated[str, typer.Option(help="Storage of latents: bf16, fp16 or fp32.")] = "bf16",
    samples_per_shard: Annotated[int, typer.Option(help="Samples per shard file.")] = 64,
    workers: Annotated[
        int | None, typer.Option(help="Decoding processes per rank; 0: none. Default: by the number of cores.")
    ] = None,
    device: Annotated[
        str, typer.Option(help="auto, cpu or cuda; with torchrun each rank takes its own GPU.")
    ] = "auto",
    dtype: Annotated[
        str, typer.Option(help="Computation of the tokenizer: auto (bf16 on GPUs, fp32 else), bf16, fp16 or fp32.")
    ] = "auto",
    text_device: Annotated[str, typer.Option(help="Where captions are embedded: auto (as --device) or cpu.")] = "auto",
    verify: Annotated[
        Verify,
        typer.Option(help="Compare the tokenizer with its checksums: all, sizes alone, or all up to 64 GiB."),
    ] = "auto",
    layout: Annotated[
        str,
        typer.Option(
            "--layout",
            "--source",
            help="What SOURCE is: clips, images, waymo or rig (a folder for each camera), or auto by what lies there.",
        ),
    ] = "auto",
    rig: Annotated[
        str | None,
        typer.Option(
            help="YAML file that says which folders are cameras, in which order, with which view ids; or waymo, av7, "
            "av6. Default: rig.yaml in SOURCE, or that of the layout."
        ),
    ] = None,
    captions: Annotated[
        Captions | None,
        typer.Option(help="Cameras with captions: the front one alone, or all. Default: as the rig says."),
    ] = None,
    split: Annotated[
        Split,
        typer.Option(help="All clips, or without (train) or only (val) the last tenth by name and one more."),
    ] = "all",
    skip_incomplete: Annotated[
        bool,
        typer.Option(
            "--skip-incomplete",
            help="Leave clips out of which a camera is missing or differs in length or rate; default: refused.",
        ),
    ] = False,
) -> None:
    """Tokenize a dataset offline, once, so that training reads latents instead of video.

    Runs in one process or under torchrun on many GPUs and nodes; each rank takes its share of the clips. Clips that do
    not decode or are too short are left out and counted. A stopped call, started again, goes on where it was; clips
    that changed since are made again, and those that are gone are dropped.

    [bold]Example:[/bold] nemo-cosmos prepare datasets/hdvila datasets/hdvila_shards --tokenizer checkpoints/Cosmos-Tokenize1-CV8x8x8-720p --text-encoder google-t5/t5-11b --frames 121 --size 704x1280
    """  # noqa: E501
    sizes = None if size is None else parse_sizes(size)
    require_range("--frames", frames, 1, LARGEST_SIDE)
    require_range("--fps", fps, 0.01, 1000)
    require_range("--step", step, 1, LARGEST_SIDE)
    require_range("--stride", stride, 0, 1_000_000)
    require_range("--samples-per-shard", samples_per_shard, 1, 1_000_000)
    require_range("--workers", workers, 0, 1024)
    from nemo_cosmos.data.sample import TEXT_LENGTH

    require_range("--text-length", text_length, 1, TEXT_LENGTH)
    from nemo_cosmos.prepare.dataset import prepare_dataset

    prepare_dataset(
        source,
        out,
        tokenizer=tokenizer,
        text_encoder=text_encoder,
        frames=frames,
        size=sizes,
        fit=fit,
        fps=fps,
        step=step,
        stride=stride,
        keep_removed=keep_removed,
        keep_damaged=keep_damaged,
        default_caption=default_caption,
        text_length=text_length,
        latent_dtype=latent_dtype,
        samples_per_shard=samples_per_shard,
        workers=workers,
        device=device,
        dtype=dtype,
        text_device=text_device,
        verify=verify,
        source_kind=layout,
        rig=rig,
        captions=captions,
        split=split,
        skip_incomplete=skip_incomplete,
    )
