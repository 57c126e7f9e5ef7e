#!/usr/bin/env python
"""List the images of a folder, with their captions, as the batch that Video2World inference takes.

Example: python tools/prepare_batch_input_json.py --dataset_path datasets/first_frames --save_path outputs/videos --output_path outputs/batch.json
"""  # noqa: E501

from __future__ import annotations

import argparse
import sys

from nemo_cosmos.commands.options import run_tool
from nemo_cosmos.data.listing import parse_paths
from nemo_cosmos.ending import Flags


def main() -> None:
    parser = Flags(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset_path", required=True, help="NAME.jpg beside NAME.txt, or images/ with metas/")
    parser.add_argument("--save_path", required=True, help="folder that the videos shall be written to")
    parser.add_argument("--output_path", required=True, help="JSON file to write")
    given = parse_paths(parser, sys.argv[1:])

    from nemo_cosmos.prepare.batch_input import write_batch_input

    count = write_batch_input(given.dataset_path, given.save_path, given.output_path)
    print(f"{given.output_path}: {count} requests")


if __name__ == "__main__":
    run_tool(main)
