#!/usr/bin/env python
"""Download released Predict1 networks, their tokenizer and text encoder; an interrupted download continues.

Example: python tools/download_diffusion_checkpoints.py --model_sizes 7B --model_types Video2World
"""

from __future__ import annotations

import argparse
from pathlib import Path

from nemo_cosmos.commands.options import run_tool
from nemo_cosmos.ending import Flags


def main() -> None:
    parser = Flags(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model_sizes", nargs="*", default=["7B", "14B"], help="7B 14B")
    parser.add_argument(
        "--model_types",
        nargs="*",
        default=["Text2World", "Video2World"],
        help="Text2World Video2World Text2World-Sample-AV-Multiview Video2World-Sample-AV-Multiview",
    )
    parser.add_argument("--output_dir", "--checkpoint_dir", default="checkpoints", help="parent of the folders")
    parser.add_argument("--dry_run", action="store_true", help="print the sizes and stop")
    parser.add_argument("--skip_md5", action="store_true", help="do not compare with the sums of the released files")
    arguments = parser.parse_args()

    from nemo_cosmos.download.hub import download_all
    from nemo_cosmos.download.networks import diffusion_repositories

    wanted = diffusion_repositories(arguments.model_sizes, arguments.model_types, Path(arguments.output_dir))
    download_all(wanted, dry_run=arguments.dry_run, check_sums=not arguments.skip_md5)


if __name__ == "__main__":
    run_tool(main)
