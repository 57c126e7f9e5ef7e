"""Reconstruct videos with a tokenizer: ``python -m nemo_cosmos.inference.video_cli --video_pattern 'dir/*.mp4' …``.

Flags are those of the released command of the same name.
"""

from __future__ import annotations

import argparse
import glob
import sys
from collections.abc import Sequence
from pathlib import Path

from nemo_cosmos.errors import InputError

EXAMPLE = """example:
  python -m nemo_cosmos.inference.video_cli --video_pattern 'videos/*.mp4' \\
    --checkpoint_enc checkpoints/Cosmos-Tokenize1-CV8x8x8-720p/encoder.jit \\
    --checkpoint_dec checkpoints/Cosmos-Tokenize1-CV8x8x8-720p/decoder.jit --psnr
"""


def build_parser() -> argparse.ArgumentParser:
    """The command's flags."""
    parser = argparse.ArgumentParser(
        prog="python -m nemo_cosmos.inference.video_cli",
        description="Reconstruct videos with a Cosmos tokenizer, window by window, and write them as mp4.",
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--video_pattern", required=True, help="glob of the videos")
    parser.add_argument("--checkpoint", help="whole autoencoder (.jit), or in torch mode weights of any form")
    parser.add_argument("--checkpoint_enc", help="encoder (.jit)")
    parser.add_argument("--checkpoint_dec", help="decoder (.jit)")
    parser.add_argument(
        "--tokenizer_type", help="CV8x8x8-720p, DV8x16x16-720p, CV4x8x8-360p or DV4x8x8-360p; required in torch mode"
    )
    parser.add_argument(
        "--mode",
        choices=("jit", "torch"),
        default="jit",
        help="jit: run the TorchScript files; torch: this package's network with their weights",
    )
    parser.add_argument("--short_size", type=int, help="resize the shorter side to this many pixels first")
    parser.add_argument("--temporal_window", type=int, default=17, help="frames coded at once (default 17)")
    parser.add_argument("--dtype", choices=("bfloat16", "float16", "float32"), default="bfloat16")
    parser.add_argument("--device", default="cuda", help="cuda (default), cuda:N or cpu")
    parser.add_argument("--output_dir", help="default: the folder `reconstructions` beside each video")
    parser.add_argument("--output_fps", type=float, default=24.0, help="frame rate of the output (default 24)")
    parser.add_argument("--save_input", action="store_true", help="write NAME_input.mp4 as well")
    parser.add_argument("--psnr", action="store_true", help="print the PSNR of every reconstruction")
    return parser


def run(argv: Sequence[str]) -> list[Path]:
    """Reconstruct every matching video; returns the files written.

    Raises:
        InputError: nothing matches, no checkpoint, or a checkpoint that does not fit.
    """
    args = build_parser().parse_args(argv)
    videos = sorted(glob.glob(args.video_pattern, recursive=True))
    if not videos:
        raise InputError(f"--video_pattern {args.video_pattern!r}: no video matches")
    if args.checkpoint is None and (args.checkpoint_enc is None or args.checkpoint_dec is None):
        raise InputError("no checkpoint: give --checkpoint, or --checkpoint_enc and --checkpoint_dec")
    if args.mode == "torch" and args.tokenizer_type is None:
        raise InputError("--mode torch needs --tokenizer_type")

    import torch
    from tqdm import tqdm

    from nemo_cosmos.data.video import read_frames, write_mp4
    from nemo_cosmos.inference.tokenizer import TokenizerCodec, resize_short_side
    from nemo_cosmos.models.tokenizer.metrics import psnr

    if args.device.startswith("cuda") and not torch.cuda.is_available():
        raise InputError(f"--device {args.device}: no CUDA device is visible; use --device cpu")
    dtype = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}[args.dtype]
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
    written = []
    for name in tqdm(videos, desc="videos", disable=len(videos) < 2):
        source = Path(name)
        frames = read_frames(source)
        if args.short_size is not None:
            frames = resize_short_side(frames, args.short_size)
        output = codec.reconstruct(frames, args.temporal_window)
        folder = Path(args.output_dir) if args.output_dir else source.parent / "reconstructions"
        folder.mkdir(parents=True, exist_ok=True)
        target = folder / f"{source.stem}.mp4"
        write_mp4(target, output, args.output_fps)
        if args.save_input:
            write_mp4(folder / f"{source.stem}_input.mp4", frames, args.output_fps)
        written.append(target)
        note = ""
        if args.psnr:
            levels = [(clip.unsqueeze(0).float() / 127.5 - 1.0) for clip in (frames, output)]
            note = f"  PSNR {psnr(levels[0], levels[1]).item():.2f} dB"
        print(f"{target}{note}", flush=True)
    return written


def main() -> None:
    """The command line; a mistake of the user ends with one line on stderr and exit status 2."""
    try:
        run(sys.argv[1:])
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
