"""From a dataset and the folders of its models to shards: what `nemo-cosmos prepare` and `nc.prepare` call."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from nemo_cosmos.checksums import Verify
from nemo_cosmos.choices import Captions, Fit, Split
from nemo_cosmos.data.shards import SAMPLES_PER_SHARD
from nemo_cosmos.data.windows import Size, WindowPlan
from nemo_cosmos.ending import report_to
from nemo_cosmos.errors import InputError
from nemo_cosmos.models.text import load_text_encoder, text_encoder_name
from nemo_cosmos.models.video_tokenizer import open_tokenizer
from nemo_cosmos.precision import long_name
from nemo_cosmos.prepare.decode import default_workers
from nemo_cosmos.prepare.device import resolve_device, resolve_dtype
from nemo_cosmos.prepare.encode import LITTLE, PrepareResult, Progress, join_ranks, prepare
from nemo_cosmos.prepare.selection import usable_clips
from nemo_cosmos.prepare.sources import OpenedSource, SourceOptions, open_source
from nemo_cosmos.prepare.text_embeddings import recorded_encoder, recorded_length
from nemo_cosmos.typed import check_arguments

SHOWN = 5


def prepare_dataset(
    source: str | Path,
    out: str | Path,
    *,
    tokenizer: str | Path,
    text_encoder: str | Path | None = None,
    frames: int | None = None,
    size: tuple[int, int] | Sequence[tuple[int, int]] | None = None,
    fit: Fit | None = None,
    fps: float | None = None,
    step: int = 1,
    stride: int = 0,
    keep_removed: bool = False,
    keep_damaged: bool = False,
    default_caption: str | None = None,
    text_length: int = 512,
    latent_dtype: str = "bf16",
    samples_per_shard: int = SAMPLES_PER_SHARD,
    workers: int | None = None,
    device: str = "auto",
    dtype: str = "auto",
    text_device: str = "auto",
    verify: Verify = "auto",
    source_kind: str = "auto",
    rig: str | Path | None = None,
    captions: Captions | None = None,
    split: Split = "all",
    skip_incomplete: bool = False,
) -> PrepareResult:
    """Tokenize a dataset offline, once, so that training reads latents instead of video.

    Goes on where a stopped call was. Under torchrun every process calls it and encodes its share of the clips. Shows a
    progress bar and prints what became of the clips.

    Args:
        source: folder with ``videos/`` and ``metas/``, folder of videos with ``*.txt``, or ``.jsonl`` file; or the
            same with images; or a folder for each camera of a rig (docs/multiview.md).
        out: folder of shards to write.
        tokenizer: folder of the video tokenizer, or Wan's tokenizer.pth.
        text_encoder: T5 folder or repository that embeds the captions; None uses the embeddings in
            ``source/t5_xxl``.
        frames: pixel frames per sample, 1 + k * temporal compression; None: 121, of images 1, else as the rig says.
        size: (height, width) in pixels, or several: a clip takes the one whose shape is nearest to its own; None:
            (704, 1280), or as the rig says.
        fit: how a clip of another shape fills the size: "crop", "pad" or "stretch"; None: "crop", or as the rig says.
        fps: resample to this rate; None: each clip's own, or as the rig says.
        step: take every n-th frame.
        stride: frames between the windows of a long clip; 0: its first window alone.
        keep_removed: keep the samples of clips that are no longer in ``source``.
        keep_damaged: take clips with lost packets or combed frames as they decode.
        default_caption: caption of clips that have none.
        text_length: text tokens kept.
        latent_dtype: storage of latents: "bf16", "fp16" or "fp32".
        samples_per_shard: samples per shard file.
        workers: decoding processes per rank; 0: none; None: by the number of cores.
        device: "auto", "cpu" or "cuda".
        dtype: computation of the tokenizer: "auto" (bf16 on GPUs, fp32 else), "bf16", "fp16" or "fp32".
        text_device: where captions are embedded: "auto" (as ``device``) or "cpu".
        verify: how the tokenizer is compared with its checksums: "auto", "full" or "size".
        source_kind: what ``source`` is: "clips", "images", "waymo", "rig", or "auto" by what lies there.
        rig: file that says which folders are cameras, or name of one of the package; None: the layout's.
        captions: cameras with captions, "front" or "all"; None: as the rig says.
        split: "train" leaves the last tenth of the clips by name out, and one more; "val" takes those alone.
        skip_incomplete: clips whose cameras are missing or differ in length or rate are left out instead of refused.

    Returns:
        What the call did: ``path``, ``samples`` (in the folder now), ``written``, ``skipped``, ``manifest``, ….

    Raises:
        InputError: a value of the wrong type or that does not fit the tokenizer, a missing folder, no usable clip, or
            a folder ``out`` that holds something else or cannot be written.
    """
    sizes = () if size is None else _sizes(size)
    check_arguments(prepare_dataset, {**locals(), "size": None if size is None else sizes[0]})
    source, out, tokenizer = Path(source), Path(out), Path(tokenizer)
    encoder = None if text_encoder is None else str(text_encoder)
    report_to(out)
    asked = SourceOptions(encoder is None, default_caption, rig=rig, captions=captions, list_problems=True)
    opened = open_source(source, source_kind, asked)
    plan = _plan(opened, source, frames, sizes, fit, step, stride, fps, keep_damaged)
    alone = not torch.distributed.is_initialized()
    rank = join_ranks()
    clips, left_out = usable_clips(opened, source, out, split, keep_damaged=keep_damaged, skip=skip_incomplete)
    texts = [text for clip in clips for text in clip.views or [clip]]
    used_default = any(text.caption_file is None and text.caption == default_caption for text in texts)
    place = resolve_device(device)
    compute_dtype = resolve_dtype(dtype, place)
    video_tokenizer = open_tokenizer(tokenizer, device=place, dtype=compute_dtype, verify_files=verify)
    text_place = place if text_device == "auto" else resolve_device(text_device)
    if rank.index == 0:
        print(f"tokenizer {video_tokenizer.identity}: {video_tokenizer.origin}", flush=True)
        if opened.not_read:
            print(f"not read, for their suffixes: {opened.not_read}")
        if opened.note:
            print(opened.note)
    with _bar(rank.index == 0) as on_progress:
        result = prepare(
            clips,
            out,
            tokenizer=video_tokenizer,
            plan=plan,
            text_encoder=None
            if encoder is None
            else lambda: load_text_encoder(encoder, max_length=text_length, device=text_place),
            text_encoder_name=recorded_encoder(source) if encoder is None else text_encoder_name(encoder),
            latent_dtype=long_name(latent_dtype, "latent dtype"),
            samples_per_shard=samples_per_shard,
            workers=default_workers() if workers is None else workers,
            device=place,
            options={
                "dtype": str(compute_dtype).removeprefix("torch."),
                "text_length": recorded_length(source) if encoder is None else text_length,
                "default_caption": default_caption if used_default else None,
                "split": None if split == "all" else split,
                **opened.settings(),
            },
            left_out=left_out,
            keep_removed=keep_removed,
            on_progress=on_progress,
        )
    if rank.index == 0:
        _report(result, out)
    if alone and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
    return result


def _plan(
    opened: OpenedSource,
    source: Path,
    frames: int | None,
    sizes: tuple[Size, ...],
    fit: Fit | None,
    step: int,
    stride: int,
    fps: float | None,
    keep_damaged: bool,
) -> WindowPlan:
    """The windows of a source's clips; InputError for more frames than its clips have, and choices among them."""
    usual = opened.sampling
    sizes, fit, fps = sizes or (usual.size,), fit or usual.fit, usual.fps if fps is None else fps
    count = (opened.frames or usual.frames) if frames is None else frames
    plan = WindowPlan(count, sizes[0], fit, step, stride, fps, keep_damaged, sizes[1:])
    if opened.frames is None:
        return plan
    alone = WindowPlan(opened.frames, sizes[0], fit)
    for name in ("frames", "step", "stride", "fps", "keep_damaged"):
        if getattr(plan, name) != getattr(alone, name):
            raise InputError(
                f"{name}={getattr(plan, name)}: {source} holds {opened.kind}, which have one frame each and no rate; "
                "leave it out"
            )
    return plan


def _sizes(size: Any) -> tuple[Size, ...]:
    """One size or several, in an order that does not depend on the caller's."""
    several = isinstance(size, list | tuple) and all(isinstance(one, list | tuple) for one in size)
    sizes = [tuple(one) for one in (size if several else [size] if isinstance(size, list | tuple) else [])]
    if not sizes or any(len(one) != 2 or not all(type(side) is int for side in one) for one in sizes):
        raise InputError(
            f"size={repr(size)[:80]}: expected (height, width) in pixels, or several: [(704, 1280), (1280, 704)]"
        )
    if len(set(sizes)) < len(sizes):
        raise InputError(f"size={str(size)[:80]}: a size is named twice")
    return tuple(sorted(sizes))


@contextlib.contextmanager
def _bar(shown: bool) -> Iterator[Callable[[Progress], None]]:
    """A progress bar with rates; gives the function that moves it."""
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    columns = ("preparing", BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}"))
    progress = Bar(*columns, TimeRemainingColumn(), disable=not shown)

    def move(state: Progress) -> None:
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
    if result.cropped:
        print(
            f"{result.cropped} of {result.written} samples show less than {LITTLE:.0%} of their picture, the rest is "
            "cut off: name a size for each shape, for example --size 704x1280,1280x704,960x960, or --fit pad"
        )
    print(
        f"prepared {result.written} samples{rate}; {result.already_done} were there already, "
        f"{len(result.skipped)} clips skipped"
    )
    print(f"{out}: {manifest.samples} samples in {len(manifest.shards)} shards, latents {shapes}")
