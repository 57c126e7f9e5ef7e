"""Option types and endings shared by the verbs and the scripts of `tools/`."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable
from typing import Annotated, Any

import typer

from nemo_cosmos.data.listing import parse_paths
from nemo_cosmos.ending import Flags, run_to_end
from nemo_cosmos.errors import InputError, require_range
from nemo_cosmos.other_names import check_config_file

LARGEST_SIDE = 1 << 14
"""Pixels; also cells of a latent, which are fewer."""
LARGEST_SEED = (1 << 63) - 1
LONGEST_TEXT = 512
"""Tokens of a caption that the networks take; nemo_cosmos.models.text.TEXT_LENGTH without what that loads."""

OriginalConfig = Annotated[
    str | None, typer.Option(help="Accepted from the original commands, whose Python file it names; not read.")
]


def explain_config_file(path: str | None) -> None:
    """Say that a ``--config`` is not needed; InputError where it names settings that would not be read."""
    if path is not None:
        print(check_config_file(path), file=sys.stderr)


def parse_size(text: str) -> tuple[int, int]:
    """``HEIGHTxWIDTH`` in pixels -> (height, width); InputError shows the expected form."""
    height, width = parse_sides(
        text, 2, f"--size {text[:40]!r}: expected HEIGHTxWIDTH in pixels, for example 704x1280"
    )
    return height, width


def parse_sizes(text: str) -> list[tuple[int, int]]:
    """``HEIGHTxWIDTH,HEIGHTxWIDTH,…`` in pixels, at least one -> [(height, width)]."""
    return [parse_size(part.strip()) for part in text.split(",")]


def parse_sides(text: str, count: int, otherwise: str) -> list[int]:
    """``AxBxC`` -> whole numbers from 1 to :data:`LARGEST_SIDE`; InputError begins with ``otherwise``."""
    parts = text.lower().split("x")
    if len(parts) != count or not all(re.fullmatch("[0-9]{1,9}", part) for part in parts):
        raise InputError(otherwise)
    sides = list(map(int, parts))
    if not 1 <= min(sides) <= max(sides) <= LARGEST_SIDE:
        raise InputError(f"{otherwise}, each from 1 to {LARGEST_SIDE}")
    return sides


def run_tool(main: Callable[[], object]) -> None:
    """Run a script of `tools/` or `examples/`; a mistake of the user ends with one line and exit status 2."""
    run_to_end(main)


def embedding_parser(description: str, dataset: str, holds: str) -> Flags:
    """Parser of a script that embeds captions with T5: the flags that all of them have.

    Args:
        description: help text.
        dataset: default of ``--dataset_path``.
        holds: what is expected in that folder.
    """
    parser = Flags(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset_path", default=dataset, help=f"folder with {holds}")
    parser.add_argument("--max_length", type=int, default=LONGEST_TEXT, help="text tokens kept, at most 512")
    parser.add_argument("--pretrained_model_name_or_path", default="google-t5/t5-11b", help="T5 folder or repository")
    parser.add_argument("--cache_dir", default="checkpoints", help="folder that models are downloaded to")
    parser.add_argument("--dtype", default="fp32", help="of the encoder: fp32 (as released) or bf16")
    parser.add_argument("--batch_size", type=int, default=8, help="captions per call of the encoder")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    parser.add_argument("--offload", action="store_true", help="weights on the CPU, one block at a time on the GPU")
    return parser


def parse_embedding(parser: Flags) -> dict[str, Any]:
    """The values of an :func:`embedding_parser` for this process' command line.

    Raises:
        InputError: a flag that it does not have, or a number that no run can have.
    """
    arguments = parse_paths(parser, sys.argv[1:])
    require_range("--batch_size", arguments.batch_size, 1, 4096)
    require_range("--max_length", arguments.max_length, 1, LONGEST_TEXT)
    return vars(arguments)
