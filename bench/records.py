#!/usr/bin/env python
"""A folder of a million records: opening it, the epochs of one, three and eight ranks, two thousand steps of reading.

python bench/records.py                          # a million records in 1,000 shards; about five minutes on 2 cores
python bench/records.py --records 20000 --steps 400
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=1_000_000)
    parser.add_argument("--shards", type=int, default=1_000)
    parser.add_argument("--steps", type=int, default=2_000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--json", type=Path, help="file for the figures")
    settings = vars(parser.parse_args())
    target = settings.pop("json")

    from webdataset import WebDataset

    from nemo_cosmos.bench.records import run

    figures = run(**settings, peer=lambda urls: iter(WebDataset(urls, shardshuffle=False)))
    if target:
        target.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
