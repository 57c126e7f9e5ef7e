#!/usr/bin/env python
"""Give every video or image of a dataset a prompt, and embed it with T5: metas/*.txt, t5_xxl/*.pickle.

A caption that is there is kept, and embedded as it is; an edited one is embedded again.

Example: python tools/get_t5_embeddings_from_cosmos_nemo_assets.py --dataset_path datasets/cosmos_nemo_assets_images --prompt "An image of sks teal robot." --is_image
"""  # noqa: E501

from __future__ import annotations

from nemo_cosmos.commands.options import embedding_parser, parse_embedding, run_tool


def main() -> None:
    assert __doc__ is not None
    parser = embedding_parser(__doc__, "datasets/cosmos_nemo_assets", "videos/*.mp4 or images/*.jpg")
    parser.add_argument("--prompt", help='caption of what has none; default: "A video of sks teal robot." or its like')
    parser.add_argument("--is_image", action="store_true", help="caption images/*.jpg instead of videos/*.mp4")
    values = parse_embedding(parser)
    prompt, is_image = values.pop("prompt"), bool(values.pop("is_image"))

    from nemo_cosmos.prepare.captions import give_captions
    from nemo_cosmos.prepare.text_embeddings import embed_with_bar

    prompt = ("An image" if is_image else "A video") + " of sks teal robot." if prompt is None else prompt
    embed_with_bar(captions=give_captions(values["dataset_path"], prompt, is_image=is_image), **values)


if __name__ == "__main__":
    run_tool(main)
