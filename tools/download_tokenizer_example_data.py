#!/usr/bin/env python
"""Download HD-VILA videos and cut the clips that a tokenizer is trained on: videos/*.mp4 (captions come along).

Example: python tools/download_tokenizer_example_data.py --dataset_path datasets/hdvila --N_videos 128 --do_download --do_clip
"""  # noqa: E501

from __future__ import annotations

from nemo_cosmos.commands.options import run_tool


def main() -> None:
    from nemo_cosmos.download.hdvila import main as download_and_clip

    assert __doc__ is not None
    download_and_clip(__doc__)


if __name__ == "__main__":
    run_tool(main)
