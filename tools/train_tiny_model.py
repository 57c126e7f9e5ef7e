#!/usr/bin/env python
"""Make nemo-cosmos-tiny from nothing: clips, tokenizer, latents, four networks, and the folder that is shipped.

    python tools/train_tiny_model.py outputs/tiny                    # one GPU, many cores
    python tools/train_tiny_model.py outputs/tiny --size smoke       # the same steps, hardly trained, on a CPU
    python tools/train_tiny_model.py outputs/tiny --install          # put the finished folder into the package

The same command goes on where it was ended, in the middle of a training too; SIGTERM saves first. What is
shipped is in OUT/nemo-cosmos-tiny, logs are in OUT/logs, decoded clips in OUT/decoded (3 GB for 4,800 clips).
"""

from __future__ import annotations

import argparse
import dataclasses
import shlex
from pathlib import Path

from nemo_cosmos.commands.options import LARGEST_SEED, run_tool
from nemo_cosmos.ending import Flags
from nemo_cosmos.errors import InputError, require_range
from nemo_cosmos.typed import read_text

LARGEST = 10_000_000


def main() -> None:
    parser = Flags(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="folder of everything that is made")
    parser.add_argument("--size", choices=("full", "smoke"), default="full", help="how much (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="the same seed gives the same weights (%(default)s)")
    parser.add_argument("--clips", type=int, help="clips to train on, a quarter of them portrait (by --size)")
    parser.add_argument("--tokenizer-steps", type=int, help="optimizer steps of the tokenizer (by --size)")
    parser.add_argument("--network-steps", type=int, help="optimizer steps of each network (by --size)")
    parser.add_argument(
        "--tokenizer", action="append", default=[], metavar="KEY=VALUE", help="setting of its training; repeatable"
    )
    parser.add_argument(
        "--networks", action="append", default=[], metavar="KEY=VALUE", help="setting of their training; repeatable"
    )
    parser.add_argument("--without-photos", action="store_true", help="only clips that need no photographs")
    parser.add_argument("--workers", type=int, help="processes that render and read (all cores)")
    parser.add_argument("--until", choices=("clips", "tokenizer", "latents", "networks"), help="end after this step")
    parser.add_argument("--install", action="store_true", help="copy OUT/nemo-cosmos-tiny into the package")
    parser.add_argument(
        "--figures", type=Path, help="with --install: Markdown file for the model card, what was measured"
    )
    run(parser.parse_args())


def run(arguments: argparse.Namespace) -> None:
    """
    Raises:
        InputError: a flag is wrong.
        SystemExit: a step failed, or a signal came.
    """
    for name, least, most in (
        ("seed", 0, LARGEST_SEED // 2 - 1), ("clips", 4, LARGEST), ("tokenizer_steps", 1, LARGEST),
        ("network_steps", 1, LARGEST), ("workers", 1, 256),
    ):  # fmt: skip
        require_range(f"--{name.replace('_', '-')}", getattr(arguments, name), least, most)
    for setting in (*arguments.tokenizer, *arguments.networks):
        if not setting.partition("=")[2] or setting.startswith(("output_dir=", "trainer.max_steps=")):
            raise InputError(f"{setting}: expected KEY=VALUE; steps are set by --tokenizer-steps and --network-steps")
    if arguments.figures is not None and not arguments.install:
        raise InputError("--figures: goes into the model card that --install writes; add --install")
    out: Path = arguments.out.absolute()
    if out.exists() and not out.is_dir():
        raise InputError(f"{out} is a file; name a folder")
    from tiny_model import folder
    from tiny_model.plan import NAME, Plan
    from tiny_model.sizes import SIZES

    from nemo_cosmos.steps import StepLog

    if arguments.install:
        figures = arguments.figures
        folder.install(out / NAME, figures=figures and read_text(figures))
        print(f"{out / NAME} is in the package: {folder.PACKAGED}")
        return
    size = SIZES[arguments.size]
    if arguments.clips is not None:
        portrait = arguments.clips // 4
        size = dataclasses.replace(size, clips=(arguments.clips - portrait, portrait))
    size = dataclasses.replace(
        size,
        tokenizer_steps=arguments.tokenizer_steps or size.tokenizer_steps,
        network_steps=arguments.network_steps or size.network_steps,
    )
    plan = Plan(
        out,
        size,
        arguments.seed,
        workers=arguments.workers or usable_cores(),
        without_photos=arguments.without_photos,
        tokenizer=arguments.tokenizer,
        networks=arguments.networks,
        command=command(arguments),
    )
    out.mkdir(parents=True, exist_ok=True)
    steps = plan.steps()
    last = next((n for n, step in enumerate(steps, 1) if step.name == arguments.until), len(steps))
    StepLog(out / "steps.json").perform(steps[:last])
    if last == len(steps):
        bytes_ = sum(file.stat().st_size for file in (out / NAME).rglob("*") if file.is_file())
        print(f"{out / NAME}: {bytes_:,} bytes")


def usable_cores() -> int:
    """Processor cores that this process may run on."""
    import os

    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def command(arguments: argparse.Namespace) -> str:
    """What makes the same weights again, whatever the folder and the machine."""
    words = ["python", "tools/train_tiny_model.py", "OUT", f"--size={arguments.size}", f"--seed={arguments.seed}"]
    for name in ("clips", "tokenizer_steps", "network_steps"):
        if (value := getattr(arguments, name)) is not None:
            words.append(f"--{name.replace('_', '-')}={value}")
    words += [f"--tokenizer={setting}" for setting in arguments.tokenizer]
    words += [f"--networks={setting}" for setting in arguments.networks]
    return shlex.join([*words, *(["--without-photos"] if arguments.without_photos else [])])


if __name__ == "__main__":
    run_tool(main)
