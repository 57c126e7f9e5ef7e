"""Figures of camera control, each by one command; exit status 1 where one is not good enough.

    python tools/camera_checks.py reprojection      # points of a rendered room against the rays of its frames
    python tools/camera_checks.py step0             # a network with rays against the one that it begins as
    python tools/camera_checks.py step0 --model checkpoints/Cosmos-Predict1-7B-Video2World/model.pt \\
        --preset predict1-7b-video2world-camera
    python tools/camera_checks.py controllability   # PSNR with the true poses and with another scene's

controllability takes some minutes on a GPU, and some ten on two cores (--size cpu, the default without a GPU).
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from nemo_cosmos.ending import Flags, run_to_end

MARGIN = 2.0
"""dB that the true poses have to be better."""


def main() -> None:
    parser = Flags(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("check", choices=("reprojection", "step0", "controllability"))
    parser.add_argument("--model", type=Path, help="step0: weights without camera rays (random tiny ones)")
    parser.add_argument(
        "--preset", default="tiny-video2world-camera", help="step0: the network with rays (%(default)s)"
    )
    parser.add_argument("--size", choices=("smoke", "cpu", "gpu"), help="controllability: how much (by the device)")
    parser.add_argument("--steps", type=int, help="controllability: optimizer steps (by --size)")
    parser.add_argument("--device", choices=("cpu", "cuda"), help="(cuda where there is one)")
    parser.add_argument("--workers", type=int, help="processes that render (by cores)")
    arguments = parser.parse_args()
    raise SystemExit(0 if run(arguments) else 1)


def run(arguments: argparse.Namespace) -> bool:
    """Prints the figure of one check; whether it is good enough."""
    import torch

    device = arguments.device or ("cuda" if torch.cuda.is_available() else "cpu")
    if arguments.check == "reprojection":
        from camera_check import reprojection

        worst, count = reprojection.reprojection_error()
        print(f"reprojection: {worst:.1e} of the distance at most, {count} points; {reprojection.ALLOWED:.0e} allowed")
        return worst <= reprojection.ALLOWED
    if arguments.check == "step0":
        from camera_check import step0

        difference, grown = step0.step0_difference(arguments.model, arguments.preset, device)
        print(f"step0: outputs differ by {difference:.1e} of the largest, {step0.ALLOWED:.0e} allowed; {grown}")
        return difference <= step0.ALLOWED
    from dataclasses import replace

    from camera_check import controllability

    size = controllability.SIZES[arguments.size or ("gpu" if device == "cuda" else "cpu")]
    if arguments.steps is not None:
        size = replace(size, steps=arguments.steps)
    workers = arguments.workers if arguments.workers is not None else min(os.cpu_count() or 1, 16)
    found = controllability.measure(size, device, workers)
    print(f"controllability: {found}")
    return arguments.size == "smoke" or found.margin >= MARGIN


if __name__ == "__main__":
    run_to_end(main)
