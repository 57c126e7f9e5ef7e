"""The verb `prepare`: clips and captions into shards of latents and text embeddings."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nemo_cosmos.commands.options import LARGEST_SIDE, Verify, parse_size
from nemo_cosmos.ending import report_to
from nemo_cosmos.errors import require_range

if TYPE_CHECKING:
    from nemo_cosmos.prepare.encode import PrepareResult

SHOWN = 5


def prepare(
    source: Annotated[
        Path,
        typer.Argument(
            help="Folder with videos/ and metas/ (Cosmos layout), folder of videos with *.txt, or .jsonl file."
        ),
    ],
    out: Annotated[Path, typer.Argument(help="Folder of shards to write; an interrupted call goes on in it.")],
    tokenizer: Annotated[Path, typer.Option(help="Folder of the video tokenizer.")],
    text_encoder: Annotated[
        str | None,
        typer.Option(
            help="T5 folder or Hugging Face repository that embeds the captions, for example google-t5/t5-11b. "
            "Without it the embeddings in SOURCE/t5_xxl are used."
        ),
    ] = None,
    frames: Annotated[int, typer.Option(help="Pixel frames per sample: 1 + k times the temporal compression.")] = 121,
    size: Annotated[str, typer.Option(help="HEIGHTxWIDTH in pixels.")] = "704x1280",
    fit: Annotated[
        str,
        typer.Option(help="How a clip of another shape fills the size: crop (cut the middle), pad (bars), stretch."),
    ] = "crop",
    fps: Annotated[float | None, typer.Option(help="Resample to this rate; default: each clip's own.")] = None,
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
    latent_dtype: Annotated[str, typer.Option(help="Storage of latents: bfloat16, float16 or float32.")] = "bfloat16",
    samples_per_shard: Annotated[int, typer.Option(help="Samples per shard file.")] = 64,
    workers: Annotated[
        int | None, typer.Option(help="Decoding processes per rank; 0: none. Default: by the number of cores.")
    ] = None,
    device: Annotated[
        str, typer.Option(help="auto, cpu or cuda; with torchrun each rank takes its own GPU.")
    ] = "auto",
    dtype: Annotated[
        str, typer.Option(help="Computation of the tokenizer: auto (bfloat16 on GPUs, float32 else) or a dtype.")
    ] = "auto",
    text_device: Annotated[str, typer.Option(help="Where captions are embedded: auto (as --device) or cpu.")] = "auto",
    verify: Annotated[
        Verify,
        typer.Option(help="Compare the tokenizer with its checksums: all, sizes alone, or all up to 64 GiB."),
    ] = Verify.auto,
) -> None:
    """Tokenize a dataset offline, once, so that training reads latents instead of video.

    Runs in one process or under torchrun on many GPUs and nodes; each rank takes its share of the clips. Clips that do
    not decode or are too short are left out and counted. A stopped call, started again, goes on where it was; clips
    that changed since are made again, and those that are gone are dropped.

    [bold]Example:[/bold] nemo-cosmos prepare datasets/hdvila datasets/hdvila_shards --tokenizer checkpoints/Cosmos-Tokenize1-CV8x8x8-720p --text-encoder google-t5/t5-11b --frames 121 --size 704x1280
    """  # noqa: E501
    height_width = parse_size(size)
    require_range("--frames", frames, 1, LARGEST_SIDE)
    require_range("--fps", fps, 0.01, 1000)
    require_range("--step", step, 1, LARGEST_SIDE)
    require_range("--stride", stride, 0, 1_000_000)
    require_range("--samples-per-shard", samples_per_shard, 1, 1_000_000)
    require_range("--workers", workers, 0, 1024)
    report_to(out)
    from nemo_cosmos.data.clips import find_clips, not_read
    from nemo_cosmos.data.sample import TEXT_LENGTH

    require_range("--text-length", text_length, 1, TEXT_LENGTH)
    clips = find_clips(source, use_embeddings=text_encoder is None, default_caption=default_caption)
    used_default = any(clip.caption_file is None and clip.caption == default_caption for clip in clips)

    import torch

    from nemo_cosmos.data.windows import WindowPlan
    from nemo_cosmos.models.text import load_text_encoder, text_encoder_name
    from nemo_cosmos.models.tokenizer import load_tokenizer
    from nemo_cosmos.prepare.decode import default_workers
    from nemo_cosmos.prepare.device import resolve_device, resolve_dtype
    from nemo_cosmos.prepare.encode import join_ranks
    from nemo_cosmos.prepare.encode import prepare as run
    from nemo_cosmos.prepare.text_embeddings import recorded_encoder, recorded_length

    place = resolve_device(device)
    compute_dtype = resolve_dtype(dtype, place)
    video_tokenizer = load_tokenizer(tokenizer, device=place, dtype=compute_dtype, verify_files=verify.value)
    rank = join_ranks()
    if rank.index == 0:
        print(f"tokenizer {video_tokenizer.identity}: {video_tokenizer.origin}", flush=True)
        if others := not_read(source):
            print(f"not read, for their suffixes: {others}")
    with _bar(rank.index == 0) as on_progress:
        result = run(
            clips,
            out,
            tokenizer=video_tokenizer,
            plan=WindowPlan(frames, height_width, fit, step, stride, fps, keep_damaged),  # type: ignore[arg-type]
            text_encoder=None
            if text_encoder is None
            else lambda: load_text_encoder(
                text_encoder, max_length=text_length, device=place if text_device == "auto" else text_device
            ),
            text_encoder_name=recorded_encoder(source) if text_encoder is None else text_encoder_name(text_encoder),
            latent_dtype=latent_dtype,
            samples_per_shard=samples_per_shard,
            workers=default_workers() if workers is None else workers,
            device=place,
            options={
                "dtype": str(compute_dtype).removeprefix("torch."),
                "text_length": recorded_length(source) if text_encoder is None else text_length,
                "default_caption": default_caption if used_default else None,
            },
            keep_removed=keep_removed,
            on_progress=on_progress,
        )
    if rank.index == 0:
        _report(result, out)
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def _bar(shown: bool) -> Any:
    """Context of a progress bar with rates; gives the function that moves it."""
    import contextlib
    from collections.abc import Iterator

    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from nemo_cosmos.prepare.encode import Progress as State

    @contextlib.contextmanager
    def bar() -> Iterator[Any]:
        columns = ("preparing", BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}"))
        progress = Progress(*columns, TimeRemainingColumn(), disable=not shown)

        def move(state: State) -> None:
            if not progress.tasks:
                progress.add_task("", total=state.total)
                progress.start()
            text = f"{state.clips_per_second:.2f} clips/s {state.frames_per_second:.0f} frames/s"
            if state.skipped:
                text += f" {state.skipped} skipped"
            progress.update(progress.task_ids[0], completed=state.clips, description=text)

        try:
            yield move
        finally:
            if progress.tasks:
                progress.stop()

    return bar()


def _list(what: str, done: str, names: list[str]) -> None:
    if names:
        more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
        print(f"{what}, {done}: {', '.join(names[:SHOWN])}{more}")


def _report(result: PrepareResult, out: Path) -> None:
    manifest, changes = result.manifest, result.changes
    _list("changed since", "made again", [f"{name} ({what})" for name, what in changes.changed.items()])
    _list("no longer in the dataset", "kept" if changes.keep_removed else "dropped", changes.removed)
    if changes.unknown:
        print(f"{changes.unknown} samples were made before their sources were recorded: changes are not seen in them")
    for failure in result.skipped[:SHOWN]:
        print(f"skipped: {failure.reason}")
    if len(result.skipped) > SHOWN:
        print(f"skipped: {len(result.skipped) - SHOWN} more, all listed in {out}/manifest.json")
    rate = ""
    if result.written and result.seconds:
        rate = (
            f" in {result.seconds:.1f} s ({result.written / result.seconds:.2f} samples/s, "
            f"{result.frames / result.seconds:.0f} frames/s)"
        )
    shapes = ", ".join(str(tuple(shape)) for shape in manifest.latent_shapes)
    print(
        f"prepared {result.written} samples{rate}; {result.already_done} were there already, "
        f"{len(result.skipped)} clips skipped"
    )
    print(f"{out}: {manifest.samples} samples in {len(manifest.shards)} shards, latents {shapes}")
