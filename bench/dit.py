#!/usr/bin/env python
"""Our transformer against diffusers' on one GPU: forward and backward of a slice of the 7B network.

python bench/dit.py                      # 56,320 and 8,192 tokens, bf16, 4 layers; about 4 minutes on an H200
python bench/dit.py --smoke              # a tiny network on the CPU
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--smoke", action="store_true")
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--skip-diffusers", action="store_true", help="time and profile our network alone")
    parser.add_argument("--json", type=Path, help="write every number to this file")
    arguments = parser.parse_args()

    from nemo_cosmos.bench.dit import run

    rows = run(smoke=arguments.smoke, layers=arguments.layers, skip_diffusers=arguments.skip_diffusers)
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
