#!/usr/bin/env python
"""Speed of CV8x8x8-720p encode and decode against diffusers' module, and of a training step, on one GPU.

python bench/tokenizer.py                          # 720x1280, 49 frames, about 3 minutes on an H200
python bench/tokenizer.py --size 64 64 --frames 9 --channels 8 --device cpu --dtype fp32 --no-compile
"""

import argparse
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from nemo_cosmos.bench.tokenizer import Settings, run
from nemo_cosmos.precision import short_name


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--size", type=int, nargs=2, default=(720, 1280), metavar=("H", "W"))
    add("--frames", type=int, default=49, help="1 + 8k")
    add("--channels", type=int, default=128)
    add("--device", default="cuda")
    add("--dtype", default="bf16", type=short_name, choices=("bf16", "fp32"))
    add("--repeats", type=int, default=5)
    add("--profile", action="store_true", help="print the largest kernels of every variant")
    add("--no-compile", dest="compile", action="store_false", help="leave the compiled variants out")
    add("--no-train", dest="train", action="store_false")
    add("--json", type=Path, help="write all rows to this file")
    settings = vars(parser.parse_args())
    target = settings.pop("json")
    rows = run(Settings(**settings))
    if target:
        target.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
