#!/usr/bin/env python
"""Write the .pt files of a distributed checkpoint.

In PATH: model_ema_reg.pt (regular and averaged weights) and model_ema_fp32.pt (the average); beside it PATH.pt (that in bf16).

Example: python tools/convert_distcp.py checkpoints/posttraining/text2image/2b_cosmos_nemo_assets/checkpoints/iter_000001000
"""  # noqa: E501

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from nemo_cosmos.commands.options import run_tool
from nemo_cosmos.data.listing import parse_paths
from nemo_cosmos.ending import Flags


def main() -> None:
    parser = Flags(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("path", type=Path, help="one iter_... folder of a run")
    parser.add_argument("--overwrite", action="store_true", help="replace files that exist")
    given = parse_paths(parser, sys.argv[1:])

    from nemo_cosmos.checkpoint.convert import write_released_files

    for file in write_released_files(given.path, overwrite=given.overwrite):
        print(f"written: {file}")


if __name__ == "__main__":
    run_tool(main)
