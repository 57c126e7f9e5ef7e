#!/usr/bin/env python
"""Cut every n-th frame out of the videos of a dataset: videos/*.mp4 -> images/*.jpg; an interrupted call goes on.

Example: python tools/extract_images_from_videos.py --input_dataset_dir datasets/cosmos_nemo_assets --output_dataset_dir datasets/cosmos_nemo_assets_images --stride 30
"""  # noqa: E501

from __future__ import annotations

import argparse
import sys

from nemo_cosmos.commands.options import run_tool
from nemo_cosmos.data.listing import parse_paths
from nemo_cosmos.ending import Flags
from nemo_cosmos.errors import require_range


def main() -> None:
    parser = Flags(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--input_dataset_dir", required=True, help="folder with videos/")
    parser.add_argument("--output_dataset_dir", required=True, help="folder that gets images/")
    parser.add_argument("--stride", type=int, default=30, help="frames from one image to the next")
    parser.add_argument(
        "--workers", type=int, help="processes that decode, 0: none beside this one; default: by cores"
    )
    parser.add_argument(
        "--keep_damaged", action="store_true", help="also what decodes after damage, and combed frames"
    )
    given = vars(parse_paths(parser, sys.argv[1:]))
    require_range("--workers", given["workers"], 0, 256)
    require_range("--stride", given["stride"], 1, 1_000_000)

    from nemo_cosmos.prepare.extract_images import extract_and_report

    extract_and_report(given.pop("input_dataset_dir"), given.pop("output_dataset_dir"), **given)


if __name__ == "__main__":
    run_tool(main)
