#!/usr/bin/env python
"""Embed the captions of a dataset with T5: metas/*.txt -> t5_xxl/*.pickle, as Cosmos tools read them.

Captions that have an embedding are passed over, unless they were edited since it was made.

Example: python tools/get_t5_embeddings.py --dataset_path datasets/hdvila
"""

from __future__ import annotations

import argparse
import sys

from nemo_cosmos.commands.options import run_tool
from nemo_cosmos.data.listing import parse_paths
from nemo_cosmos.ending import Flags
from nemo_cosmos.errors import require_range


def main() -> None:
    parser = Flags(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset_path", default="datasets/hdvila", help="folder with metas/*.txt")
    parser.add_argument("--max_length", type=int, default=512, help="text tokens kept")
    parser.add_argument("--pretrained_model_name_or_path", default="google-t5/t5-11b", help="T5 folder or repository")
    parser.add_argument("--cache_dir", default="checkpoints", help="folder that models are downloaded to")
    parser.add_argument("--dtype", default="fp32", help="of the encoder: fp32 (as released) or bf16")
    parser.add_argument("--batch_size", type=int, default=8, help="captions per call of the encoder")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    parser.add_argument("--offload", action="store_true", help="weights on the CPU, one block at a time on the GPU")
    arguments = parse_paths(parser, sys.argv[1:])
    require_range("--batch_size", arguments.batch_size, 1, 4096)

    from rich.progress import Progress

    from nemo_cosmos.models.text import TEXT_LENGTH
    from nemo_cosmos.prepare.text_embeddings import embed_dataset

    require_range("--max_length", arguments.max_length, 1, TEXT_LENGTH)

    with Progress() as progress:
        task = progress.add_task("embedding captions", total=None)
        embed_dataset(
            **vars(arguments), on_caption=lambda done, total: progress.update(task, completed=done, total=total)
        )


if __name__ == "__main__":
    run_tool(main)
