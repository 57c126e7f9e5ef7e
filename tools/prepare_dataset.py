#!/usr/bin/env python
"""Scenes with camera poses, as DL3DV has them, into training data for camera control; an interrupted call goes on.

Reads zips and unpacked folders of DL3DV, folders of nerfstudio (transforms.json) and of COLMAP (sparse/0).

Example: python tools/prepare_dataset.py --dataset_path datasets/DL3DV-ALL-4K --path_to_caption_dict captions.pkl --output_path camera_ctrl_dataset_cached --tokenizer_dir checkpoints/Cosmos-Tokenize1-CV8x8x8-720p
Example: torchrun --nproc_per_node=8 tools/prepare_dataset.py --dataset_path datasets/DL3DV-ALL-4K --path_to_caption_dict captions.pkl --tokenizer_dir checkpoints/Cosmos-Tokenize1-CV8x8x8-720p
"""  # noqa: E501

from __future__ import annotations

import argparse
import sys

from nemo_cosmos.commands.options import LARGEST_SEED, LARGEST_SIDE, run_tool
from nemo_cosmos.data.listing import parse_paths
from nemo_cosmos.ending import Flags
from nemo_cosmos.errors import require_range


def parser() -> Flags:
    flags = Flags(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = flags.add_argument
    add("--dataset_path", required=True, help="folder that is searched for scenes, or one scene")
    add("--output_path", default="camera_ctrl_dataset_cached", help="folder of samples to write (%(default)s)")
    add("--video_processing_cache_path", default="video_processing_cache", help="folder of videos (%(default)s)")
    add("--path_to_caption_dict", help='dictionary {"SCENE/CHUNK": caption}, pickled or JSON')
    add("--num_chunks", type=int, default=1, help="samples of each scene (%(default)s)")
    add("--height", type=int, default=704, help="rows of the encoded frames (%(default)s)")
    add("--width", type=int, default=1280, help="columns of the encoded frames (%(default)s)")
    add("--num_zip_files", type=int, default=-1, help="scenes taken, chosen by --seed; -1: all")
    add("--seed", type=int, default=1234, help="of where chunks lie (%(default)s)")
    add("--tokenizer_dir", default="", help="folder of a tokenizer with 8x8x8 compression")
    add("--text_encoder", default="google-t5/t5-11b", help="T5 folder or repository (%(default)s)")
    add("--tiny", action="store_true", help="random tiny tokenizer and text encoder, to try it offline")
    add("--format", "--format_out", choices=("pth", "shards"), default="pth", help="eight files a sample, or shards")
    add("--layout", "--format_in", choices=("auto", "dl3dv", "nerfstudio", "colmap"), default="auto",
        help="what the scenes are (%(default)s: by what lies there)")  # fmt: skip
    add("--num_frames", type=int, default=57, help="frames of a sample, 1 + a multiple of 8 (%(default)s)")
    add("--fps", type=float, default=7.0, help="frame rate that the pictures count as (%(default)s)")
    add("--default_caption", help="caption of scenes that have none")
    add("--max_unpacked_gb", type=float, help="most GiB of the pictures of a zip (64, and 200 times the file)")
    add("--clean_cache", action="store_true", help="delete the videos at the end")
    add("--workers", type=int, help="decoding processes per rank, 0: none beside this one; default: by cores")
    add("--device", default="auto", help="auto, cpu or cuda")
    add("--dtype", default="auto", help="of the tokenizer: auto (bf16 on GPUs, fp32 else), bf16, fp16 or fp32")
    return flags


def main() -> None:
    given = vars(parse_paths(parser(), sys.argv[1:]))
    for name, least, most in (
        ("num_chunks", 1, 10_000), ("height", 16, LARGEST_SIDE), ("width", 16, LARGEST_SIDE),
        ("num_zip_files", -1, 1 << 31), ("seed", 0, LARGEST_SEED), ("num_frames", 1, LARGEST_SIDE),
        ("fps", 0.01, 1000), ("max_unpacked_gb", 0, 1e6), ("workers", 0, 1024),
    ):  # fmt: skip
        require_range(f"--{name}", given[name], least, most)

    from nemo_cosmos.prepare.camera_dataset import CameraDatasetSettings, prepare_camera_dataset

    prepare_camera_dataset(CameraDatasetSettings(**given))


if __name__ == "__main__":
    run_tool(main)
