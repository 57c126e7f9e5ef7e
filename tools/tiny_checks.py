"""Figures of nemo-cosmos-tiny on clips that its training never saw; exit status 1 where a bar is missed.

    python tools/tiny_checks.py tokenizer --data my_clips --at-least 27   # PSNR of the packaged tokenizer
    python tools/tiny_checks.py base                                      # before post-training, beside a still image
    python tools/tiny_checks.py rendered --at-least 24                    # the demo on rendered clips; base and frozen
    python tools/tiny_checks.py data --data my_clips --at-least 22        # the demo on a folder: held-out windows

base renders clips and continues them; rendered and data run the demo, some minutes on two cores, and go on where an
earlier call stopped.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from nemo_cosmos.ending import Flags, run_to_end


def main() -> None:
    parser = Flags(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("check", choices=("tokenizer", "base", "rendered", "data"))
    parser.add_argument("--data", type=Path, help="tokenizer, data: folder of videos")
    parser.add_argument("--at-least", type=float, metavar="DB", help="the bar (none); base has its own")
    parser.add_argument("--output", type=Path, help="all but tokenizer: folder to write (outputs/tiny_checks/CHECK)")
    parser.add_argument("--checkpoint-dir", type=Path, help="weights in the layout of nemo-cosmos-tiny (that one)")
    parser.add_argument("--size", choices=("full", "smoke"), default="full", help="of the demo (%(default)s)")
    arguments = parser.parse_args()
    if (arguments.data is None) != (arguments.check in ("base", "rendered")):
        parser.error(f"{arguments.check} {'takes no' if arguments.data else 'needs'} --data")
    raise SystemExit(0 if run(arguments) else 1)


def run(arguments: argparse.Namespace) -> bool:
    """Prints the figures of one check; whether they reach the bar."""
    from nemo_cosmos.demo.checks import check_base, check_data, check_rendered, check_tokenizer
    from nemo_cosmos.demo.sizes import SIZES

    checkpoints, at_least, size = arguments.checkpoint_dir, arguments.at_least, SIZES[arguments.size]
    if arguments.check == "tokenizer":
        return check_tokenizer(arguments.data, checkpoints, at_least)
    output = arguments.output or Path("outputs/tiny_checks") / arguments.check
    if arguments.check == "base":
        return check_base(output, checkpoints, size)
    if arguments.check == "rendered":
        return check_rendered(output, checkpoints, at_least, size)
    return check_data(output, arguments.data, checkpoints, at_least, size)


if __name__ == "__main__":
    run_to_end(main)
