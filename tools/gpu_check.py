"""Goes the whole way on a GPU machine: prepare, train, kill, resume, export, generate; prints a table of it.

    python tools/gpu_check.py                        # 1, 2 or 4 GPUs of 80 or 141 GB
    python tools/gpu_check.py --only post_training   # one step; what it builds on is made first
    python tools/gpu_check.py --rehearse             # the same commands on a CPU, with tiny networks

Weights are random and all data is made on the spot, so nothing is downloaded. All weights are trained and, where they
fit (2 x 141 GB, 4 x 80 GB), all 28 layers of the 7B. Exit status 1 when a step fails.

camera takes the 7B with camera rays, from weights without: adapters and patch embedding on 57 frames of 704 x 1280,
saved and resumed, on one GPU of 80 GB.

predict2_text2image, predict2_lora and predict2_generation take the whole 2B, and one GPU of 80 GB: all weights on 1
and 4 images a step, saved and resumed; adapters on 93 frames of 704 x 1280; a video of 35 steps with guidance, and
such a step beside diffusers'.

multiview shares each sample among all GPUs by context parallelism: seven views of 720p on 4 x 80 or 2 x 141 GB, five
views of 480p on two GPUs or one, each beside the time of NVIDIA's guide on eight H100 NVL. multiview_720p is the first
of them alone. attention compares FlashAttention-4, where it is installed, with cuDNN's kernel and with fp32.

small_tokenizer times steps that are replayed from a CUDA graph beside those that are not.
"""

from __future__ import annotations

import argparse
import shutil
import time
import traceback
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from gpu_checks.attention import attention
from gpu_checks.camera import camera
from gpu_checks.commands import Context, Failure
from gpu_checks.inputs import SHARED
from gpu_checks.machine import NAN, GpuMonitor, Machine
from gpu_checks.multiview import multiview, seven_views
from gpu_checks.predict2 import predict2_generation, predict2_lora, predict2_text2image
from gpu_checks.steps import adapters, generation, prepare, small_tokenizer, tokenizer_training
from gpu_checks.training import post_training

from nemo_cosmos.ending import Flags, run_to_end
from nemo_cosmos.errors import require_range

STEPS: dict[str, Callable[[Context, Sequence[int]], None]] = {
    "prepare": prepare,
    "tokenizer": tokenizer_training,
    "small_tokenizer": small_tokenizer,
    "post_training": post_training,
    "adapters": adapters,
    "generation": generation,
    "camera": camera,
    "predict2_text2image": predict2_text2image,
    "predict2_lora": predict2_lora,
    "predict2_generation": predict2_generation,
    "multiview": multiview,
    "multiview_720p": seven_views,
    "attention": attention,
}
PARTS = ("multiview_720p",)
"""Of another step, which runs them; alone where they are asked for."""
ROUNDS = (
    ("prepare", "tokenizer", "adapters"),
    ("post_training",),
    ("generation",),
    ("camera",),
    ("predict2_text2image", "predict2_lora", "predict2_generation"),
    ("attention",),
    ("multiview",),
    ("multiview_720p",),
    ("small_tokenizer",),
)
"""Steps of one round run at once where each can have a GPU of its own; the last of them gets those that are left."""
MARK = ".gpu_check"
"""In a folder that this script may empty."""


def run_step(context: Context, name: str, gpus: Sequence[int]) -> None:
    start = time.time()
    try:
        STEPS[name](context, gpus)
    except Exception as error:  # the table shall name it, whatever it is
        if not isinstance(error, Failure):
            traceback.print_exc()
        print(error, flush=True)
        context.row(name, time.time() - start, NAN, str(error).splitlines()[0][:160], False)


def main() -> None:
    parser = Flags(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = f"one of {', '.join(STEPS)}; may be repeated"
    parser.add_argument("--only", action="append", choices=STEPS, metavar="NAME", help=names)
    parser.add_argument("--layers", type=int, help="train fewer layers of the 7B than fit")
    parser.add_argument("--rehearse", action="store_true", help="on a CPU, with tiny networks")
    parser.add_argument(
        "--work", type=Path, default=Path("outputs/gpu_check"), help="folder of everything, emptied first"
    )
    parser.add_argument("--keep", action="store_true", help="leave the folder")
    arguments = parser.parse_args()
    require_range("--layers", arguments.layers, 1, 28)
    machine = Machine.find(arguments.rehearse, arguments.layers)
    work = arguments.work.absolute()
    if work.exists() and any(work.iterdir()) and not (work / MARK).exists():
        parser.error(f"--work {work}: holds other files; name a new folder")
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    (work / MARK).touch()
    monitor = GpuMonitor()
    if not machine.rehearse:
        monitor.start()
    context, start = Context(work, machine, monitor), time.time()
    print(f"{machine}; {time.strftime('%Y-%m-%d')}", flush=True)
    gpus = list(range(machine.gpus))
    for names in ROUNDS:
        wanted = [name for name in names if name in (arguments.only or STEPS.keys() - set(PARTS))]
        if 1 < len(wanted) <= len(gpus) and not machine.rehearse:
            last = len(wanted) - 1
            split = [gpus[last:] if number == last else [gpus[number]] for number in range(len(wanted))]
            with ThreadPoolExecutor(len(wanted)) as pool:
                list(pool.map(partial(run_step, context), wanted, split))
        else:
            for name in wanted:
                run_step(context, name, gpus)
    print_table(context, time.time() - start)
    if not arguments.keep:
        shutil.rmtree(work, ignore_errors=True)
        shutil.rmtree(SHARED, ignore_errors=True)
    raise SystemExit(0 if all(ok for *_, ok in context.rows) else 1)


def print_table(context: Context, seconds: float) -> None:
    print(f"\n{context.machine}; {time.strftime('%Y-%m-%d')}; {seconds:.0f} s in all\n")
    print("| step | seconds | GiB | what was found | ok |\n|---|---|---|---|---|")
    for step, took, gib, value, ok in context.rows:
        memory = "" if gib != gib else f"{gib:.1f}"
        print(f"| {step} | {took:.1f} | {memory} | {value} | {'yes' if ok else 'NO'} |")


if __name__ == "__main__":
    run_to_end(main)
