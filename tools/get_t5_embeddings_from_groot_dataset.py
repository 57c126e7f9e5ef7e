#!/usr/bin/env python
"""Embed the prompts of a table with T5, a prefix before each: metas/*.txt, t5_xxl/*.pickle.

Example: python tools/get_t5_embeddings_from_groot_dataset.py --dataset_path datasets/groot --meta_csv datasets/groot/metadata.csv
"""  # noqa: E501

from __future__ import annotations

from nemo_cosmos.commands.options import embedding_parser, parse_embedding, run_tool

PREFIX = "A robot with two arms does a task in front of it."


def main() -> None:
    assert __doc__ is not None
    parser = embedding_parser(__doc__, "datasets/groot", "the videos of the table")
    parser.add_argument("--meta_csv", required=True, help="table with a header and lines FILE,PROMPT")
    parser.add_argument("--prompt_prefix", default=PREFIX, help="stands before every prompt; may be empty")
    values = parse_embedding(parser)
    table, prefix = str(values.pop("meta_csv")), str(values.pop("prompt_prefix"))

    from nemo_cosmos.prepare.captions import captions_from_table
    from nemo_cosmos.prepare.text_embeddings import embed_with_bar

    embed_with_bar(captions=captions_from_table(values["dataset_path"], table, prefix), **values)


if __name__ == "__main__":
    run_tool(main)
