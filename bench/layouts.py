#!/usr/bin/env python
"""Every parallel layout through the real training path: same losses, time of a step, memory, bytes moved.

python bench/layouts.py --gpus 4                    # NCCL; writes layouts.jsonl and prints tables
python bench/layouts.py --gpus 2 --smoke            # tiny networks on the CPU with gloo
python bench/layouts.py --gpus 4 --reference r.json # losses of one GPU from an earlier run
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from nemo_cosmos.bench.layouts import run, show


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--gpus", type=int, default=1)
    add("--worlds", type=int, nargs="*", help="sizes of the groups; default: 1 and --gpus")
    add("--only", nargs="*", default=["exact", "time"], choices=["exact", "time"])
    add("--smoke", action="store_true")
    add("--timeout", type=float, default=100.0, help="seconds without progress that count as a hang")
    add("--total", type=float, default=420.0, help="seconds after which no run is started")
    add("--reference", dest="reference_file", type=Path, help="layouts.jsonl with the one-GPU losses")
    add("--output", dest="out", type=Path, default=Path("."), help="folder of layouts.jsonl and the logs")
    add("--show", type=Path, nargs="*", help="print the tables of earlier layouts.jsonl again")
    settings = vars(parser.parse_args())
    earlier = settings.pop("show")
    show(earlier) if earlier else run(**settings)


if __name__ == "__main__":
    main()
