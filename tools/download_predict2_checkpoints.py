#!/usr/bin/env python
"""Download released Predict2 networks, their tokenizer, T5 and guardrails; an interrupted download continues.

Example: python tools/download_predict2_checkpoints.py --model_sizes 2B --model_types text2image video2world
"""

from __future__ import annotations

import argparse
from pathlib import Path

from nemo_cosmos.commands.options import run_tool
from nemo_cosmos.ending import Flags


def main() -> None:
    from nemo_cosmos.download.predict2 import DEFAULT_TYPES, RATES, RESOLUTIONS, SIZES, TYPES, predict2_repositories

    parser = Flags(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model_sizes", nargs="*", default=list(SIZES), help=" ".join(SIZES))
    parser.add_argument("--model_types", nargs="*", default=list(DEFAULT_TYPES), help=" ".join(TYPES))
    parser.add_argument("--fps", default="16", help=f"of the video networks: {' or '.join(RATES)}")
    parser.add_argument("--resolution", default="720", help=f"of the video networks: {' or '.join(RESOLUTIONS)}")
    parser.add_argument("--natten", action="store_true", help="also the video networks with sparse attention")
    parser.add_argument("--checkpoint_dir", default="checkpoints", help="parent of the folders")
    parser.add_argument("--dry-run", "--dry_run", action="store_true", help="print the sizes and stop")
    given = parser.parse_args()

    from nemo_cosmos.download.hub import download_all

    asked = {"fps": given.fps, "resolution": given.resolution, "natten": given.natten}
    wanted = predict2_repositories(given.model_sizes, given.model_types, Path(given.checkpoint_dir), **asked)
    download_all(wanted, dry_run=given.dry_run)


if __name__ == "__main__":
    run_tool(main)
