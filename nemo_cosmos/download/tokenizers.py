"""Fetch released Cosmos-Tokenize1 folders from the hub into checkpoints/Cosmos-Tokenize1-TYPE/."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from nemo_cosmos.download.hub import Fetch, Repository, fetch_repository
from nemo_cosmos.ending import Flags
from nemo_cosmos.errors import InputError

VIDEO_TYPES = ("CV8x8x8-720p", "DV8x16x16-720p", "CV4x8x8-360p", "DV4x8x8-360p")
IMAGE_TYPES = ("CI8x8-360p", "CI16x16-360p", "DI8x8-360p", "DI16x16-360p")
PATTERNS = ("config.json", "README.md", "model.pt", "mean_std.pt", "*.jit")
REQUIRED = ("config.json", "encoder.jit", "decoder.jit", "autoencoder.jit", "model.pt")
"""Files of every released video tokenizer; CV8x8x8-720p has mean_std.pt besides."""


def repository(tokenizer_type: str) -> str:
    """Hub repository of a tokenizer type; InputError for an unknown one."""
    if tokenizer_type not in VIDEO_TYPES + IMAGE_TYPES:
        raise InputError(
            f"unknown tokenizer type {tokenizer_type!r}: expected one of {', '.join(VIDEO_TYPES + IMAGE_TYPES)}"
        )
    return f"nvidia/Cosmos-Tokenize1-{tokenizer_type}"


def download(types: Sequence[str], checkpoint_dir: str | Path, fetch: Fetch | None = None) -> list[Path]:
    """Download tokenizers into ``checkpoint_dir``; interrupted downloads continue, complete files are kept.

    Args:
        types: names such as ``CV8x8x8-720p``.
        checkpoint_dir: parent of the ``Cosmos-Tokenize1-…`` folders.
        fetch: replaces ``huggingface_hub.snapshot_download``.

    Raises:
        InputError: unknown type, or the hub refuses (the licence must be accepted and a token be set).
    """
    repositories = [repository(name) for name in types]
    folders = []
    for name, repo in zip(types, repositories, strict=True):
        folder = Path(checkpoint_dir) / f"Cosmos-Tokenize1-{name}"
        print(f"{repo} -> {folder}", flush=True)
        fetch_repository(Repository(repo, folder, PATTERNS), fetch)
        if name in VIDEO_TYPES:
            missing = [file for file in REQUIRED if not (folder / file).is_file()]
            if missing:
                raise InputError(f"{repo}: downloaded, but {', '.join(missing)} is missing in {folder}; run it again")
        folders.append(folder)
    return folders


def main(argv: Sequence[str] | None = None) -> None:
    """The command line of tools/download_tokenizer_checkpoints.py."""
    parser = Flags(
        description=__doc__,
        epilog="example: python tools/download_tokenizer_checkpoints.py --tokenizer_types CV8x8x8-720p DV8x16x16-720p",
    )
    parser.add_argument("--tokenizer_types", nargs="*", default=list(VIDEO_TYPES + IMAGE_TYPES), metavar="TYPE")
    parser.add_argument("--checkpoint_dir", default="checkpoints")
    args = parser.parse_args(argv)
    if not args.tokenizer_types:
        raise InputError(f"--tokenizer_types: expected some of {', '.join(VIDEO_TYPES + IMAGE_TYPES)}")
    download(args.tokenizer_types, args.checkpoint_dir)
