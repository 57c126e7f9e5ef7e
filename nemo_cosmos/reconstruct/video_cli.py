"""Reconstruct videos with a tokenizer: ``python -m nemo_cosmos.inference.video_cli --video_pattern 'dir/*.mp4' …``.

Flags are those of the released command of the same name.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from nemo_cosmos.data.listing import expand_pattern, parse_paths
from nemo_cosmos.ending import Flags, report_to, run_to_end
from nemo_cosmos.errors import InputError, require_range
from nemo_cosmos.logs import log_shown
from nemo_cosmos.precision import LONG, short_name, to_dtype
from nemo_cosmos.tiny import TINY, packaged

if TYPE_CHECKING:
    from nemo_cosmos.reconstruct.codec import TokenizerCodec

LARGEST_SIDE = LONGEST_WINDOW = 1 << 14
"""Pixels and frames; nothing that fits into memory is larger."""
EXAMPLE = """example:
  python -m nemo_cosmos.inference.video_cli --video_pattern 'videos/*.mp4' \\
    --checkpoint_enc checkpoints/Cosmos-Tokenize1-CV8x8x8-720p/encoder.jit \\
    --checkpoint_dec checkpoints/Cosmos-Tokenize1-CV8x8x8-720p/decoder.jit --psnr
"""


def build_parser() -> argparse.ArgumentParser:
    """The command's flags."""
    parser = Flags(
        prog="python -m nemo_cosmos.inference.video_cli",
        description="Reconstruct videos with a Cosmos tokenizer, window by window, and write them as H.264.",
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--video_pattern", required=True, help="a video, or a glob of several")
    parser.add_argument(
        "--checkpoint", help="whole autoencoder (.jit) or tokenizer folder; in torch mode weights of any form"
    )
    parser.add_argument("--checkpoint_enc", help="encoder (.jit)")
    parser.add_argument("--checkpoint_dec", help="decoder (.jit)")
    parser.add_argument(
        "--tokenizer_type",
        help="CV8x8x8-720p, DV8x16x16-720p, CV4x8x8-360p, DV4x8x8-360p or (in torch mode alone) Wan2.1-VAE; "
        f"required in torch mode, except with --checkpoint {TINY}",
    )
    parser.add_argument(
        "--mode",
        choices=("jit", "torch"),
        default="jit",
        help="jit: run the TorchScript files; torch: this package's network with their weights",
    )
    parser.add_argument("--short_size", type=int, help="resize the shorter side to this many pixels first")
    parser.add_argument("--temporal_window", type=int, default=17, help="frames coded at once (default 17)")
    parser.add_argument("--dtype", type=short_name, choices=tuple(LONG), help="default: bf16 on CUDA, fp32 on the CPU")
    parser.add_argument("--device", default="cuda", help="cuda (default), cuda:N or cpu")
    parser.add_argument("--output_dir", help="default: the folder `reconstructions` beside each video")
    parser.add_argument("--output_fps", type=float, default=24.0, help="frame rate of the output (default 24)")
    parser.add_argument("--save_input", action="store_true", help="write NAME_input beside NAME as well")
    parser.add_argument("--psnr", action="store_true", help="print the PSNR of every reconstruction")
    return parser


@dataclass(frozen=True)
class _Job:
    """A video to read and the files to write: ``target``, and ``copy`` of the input with ``--save_input``."""

    source: Path
    target: Path
    copy: Path | None


def run(argv: Sequence[str]) -> list[Path]:
    """Reconstruct every matching video; returns the files written.

    Raises:
        InputError: nothing matches, no checkpoint, a checkpoint that does not fit, a video that cannot be read, or
            an output that would replace an input or another output.
    """
    args = parse_paths(build_parser(), argv)
    videos = expand_pattern(args.video_pattern)
    if not videos:
        raise InputError(f"--video_pattern {args.video_pattern!r}: no video matches")
    if args.checkpoint is None and (args.checkpoint_enc is None or args.checkpoint_dec is None):
        raise InputError("no checkpoint: give --checkpoint, or --checkpoint_enc and --checkpoint_dec")
    if (
        args.mode == "torch"
        and args.tokenizer_type is None
        and (args.checkpoint is None or packaged(args.checkpoint, "tokenizer") is None)
    ):
        raise InputError("--mode torch needs --tokenizer_type")
    if args.mode == "jit" and args.checkpoint is not None and packaged(args.checkpoint, "tokenizer") is not None:
        raise InputError(f"--checkpoint {args.checkpoint} has no TorchScript files: add --mode torch")
    if args.mode == "jit" and args.tokenizer_type == "Wan2.1-VAE":
        raise InputError("--tokenizer_type Wan2.1-VAE has no TorchScript files: add --mode torch")
    if not 1 <= args.temporal_window <= LONGEST_WINDOW:
        raise InputError(
            f"--temporal_window: temporal window of {args.temporal_window} frames, expected 1 to {LONGEST_WINDOW}"
        )
    require_range("--short_size", args.short_size, 8, LARGEST_SIDE)
    require_range("--output_fps", args.output_fps, 0.01, 1000)
    jobs = _plan(videos, args.output_dir, args.save_input)
    report_to(jobs[0].target.parent)

    import torch

    from nemo_cosmos.reconstruct.codec import TokenizerCodec

    try:
        torch.device(args.device)
    except RuntimeError as error:
        raise InputError(f"--device {args.device!r}: expected cuda, cuda:N or cpu") from error
    if args.device.startswith("cuda") and not torch.cuda.is_available():
        raise InputError(f"--device {args.device}: no CUDA device is visible; use --device cpu")
    dtype = to_dtype(args.dtype or ("bf16" if args.device.startswith("cuda") else "fp32"))
    if args.mode == "jit":
        codec = TokenizerCodec.from_jit(
            full=args.checkpoint,
            encoder=args.checkpoint_enc,
            decoder=args.checkpoint_dec,
            expected=args.tokenizer_type,
            device=args.device,
            dtype=dtype,
        )
    else:
        paths = [args.checkpoint] if args.checkpoint else [args.checkpoint_enc, args.checkpoint_dec]
        codec = TokenizerCodec.from_weights(paths, name=args.tokenizer_type, device=args.device, dtype=dtype)
    for number, job in enumerate(jobs, start=1):
        title = job.source.name if len(jobs) == 1 else f"{job.source.name} ({number} of {len(jobs)})"
        decibels = _reconstruct(job, codec, args, title)
        print(f"{job.target}{f'  PSNR {decibels:.2f} dB' if args.psnr else ''}", flush=True)
    return [job.target for job in jobs]


def _plan(videos: list[Path], output_dir: str | None, save_input: bool) -> list[_Job]:
    """Names of the outputs; InputError where one would replace an input or the output of another video."""
    from nemo_cosmos.data.video import CONTAINERS

    owners = {os.path.realpath(video): video for video in videos}
    jobs = []
    for video in videos:
        folder = Path(output_dir) if output_dir else video.parent / "reconstructions"
        suffix = video.suffix if video.suffix.lower() in CONTAINERS else ".mp4"
        copy = folder / f"{video.stem}_input{suffix}" if save_input else None
        job = _Job(video, folder / f"{video.stem}{suffix}", copy)
        for target in (job.target, job.copy):
            if target is None:
                continue
            other = owners.setdefault(os.path.realpath(target), video)
            if os.path.realpath(target) == os.path.realpath(other):
                raise InputError(
                    f"{target} would replace an input video: give another --output_dir or --video_pattern"
                )
            if other != video:
                raise InputError(
                    f"{video} and {other} would both be written to {target}: choose one with --video_pattern, or "
                    "reconstruct them into different --output_dir"
                )
        jobs.append(job)
    return jobs


def _reconstruct(job: _Job, codec: TokenizerCodec, args: argparse.Namespace, title: str) -> float:
    """One video, a window of frames in memory at a time; gives its mean PSNR in dB, 0 when not asked for."""
    from tqdm import tqdm

    from nemo_cosmos.data.video import iter_windows, probe, video_writer
    from nemo_cosmos.models.tokenizer.metrics import psnr
    from nemo_cosmos.pixels import from_levels
    from nemo_cosmos.reconstruct.codec import resize_short_side

    length, count, decibels = args.temporal_window, 0, 0.0
    with contextlib.ExitStack() as files:
        write = files.enter_context(video_writer(job.target, args.output_fps))
        write_copy = files.enter_context(video_writer(job.copy, args.output_fps)) if job.copy else None
        info = probe(job.source)
        bar = files.enter_context(tqdm(desc=title, total=info.frames_at(info.even_rate), unit="frame"))
        for _, frames in iter_windows(job.source, length, stride=length, rest=True, fps=info.even_rate):
            if args.short_size is not None:
                frames = resize_short_side(frames, args.short_size)
            output = codec.reconstruct(frames, length)
            write(output)
            if write_copy is not None:
                write_copy(frames)
            if args.psnr:
                levels = [from_levels(clip.unsqueeze(0)) for clip in (frames, output)]
                decibels += psnr(levels[0], levels[1]).item() * frames.shape[1]
            count += frames.shape[1]
            bar.update(frames.shape[1])
    return decibels / count


def main() -> None:
    """The command line; a mistake of the user ends with one line on stderr and exit status 2."""
    run_to_end(_run_logged)


def _run_logged() -> None:
    with log_shown():
        run(sys.argv[1:])


if __name__ == "__main__":
    main()
