#!/usr/bin/env python
"""Embed the captions of a dataset with T5: metas/*.txt -> t5_xxl/*.pickle, as Cosmos tools read them.

Captions that have an embedding are passed over, unless they were edited since it was made.

Example: python tools/get_t5_embeddings.py --dataset_path datasets/hdvila
"""

from __future__ import annotations

from nemo_cosmos.commands.options import embedding_parser, parse_embedding, run_tool


def main() -> None:
    assert __doc__ is not None
    values = parse_embedding(embedding_parser(__doc__, "datasets/hdvila", "metas/*.txt"))

    from nemo_cosmos.prepare.text_embeddings import embed_with_bar

    embed_with_bar(**values)


if __name__ == "__main__":
    run_tool(main)
