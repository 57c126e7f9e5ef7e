#!/usr/bin/env python
"""Give every camera's videos a prompt, and embed it with T5: metas/CAMERA/*.txt, t5_xxl/CAMERA/*.pickle, cache/*.pickle.

A caption that is there is kept, and embedded as it is; an edited one is embedded again.

Example: python tools/get_t5_embeddings_from_waymo.py --dataset_path datasets/waymo --prompt "A video of car driving on the road."
"""  # noqa: E501

from __future__ import annotations

from nemo_cosmos.commands.options import embedding_parser, parse_embedding, run_tool

PROMPT = "A video of car driving on the road."


def main() -> None:
    assert __doc__ is not None
    parser = embedding_parser(__doc__, "datasets/waymo", "videos/CAMERA/*.mp4")
    parser.add_argument("--prompt", default=PROMPT, help="caption of what has none")
    parser.add_argument("--rig", help="YAML file of the cameras; default: the dataset's, or Waymo's")
    values = parse_embedding(parser)
    prompt, name = str(values.pop("prompt")), values.pop("rig")

    from pathlib import Path

    from nemo_cosmos.data.rig import find_rig, read_rig
    from nemo_cosmos.prepare.captions import give_view_captions, prefixes
    from nemo_cosmos.prepare.text_embeddings import embed_with_bar

    found = None if name else find_rig(Path(values["dataset_path"]))
    rig = found or read_rig(name or "waymo")
    captions = give_view_captions(values["dataset_path"], rig, prompt, allow_others=name is not None)
    embed_with_bar(captions=captions, prefixes=prefixes(rig), **values)


if __name__ == "__main__":
    run_tool(main)
