"""Generate a video that continues an image or a video with Cosmos-Predict2.

python examples/video2world_predict2.py --model_size 2B --input_path first_frame.jpg \\
    --prompt "A robot arm lifts a red cup." --save_path output/robot.mp4

On 8 GPUs:

torchrun --nproc_per_node=8 examples/video2world_predict2.py --num_gpus 8 --model_size 14B \\
    --input_path first_frame.jpg --prompt "A robot arm lifts a red cup." --save_path output/robot_14b.mp4
"""

import sys

from nemo_cosmos.commands.options import run_tool


def main() -> None:
    from nemo_cosmos.data.listing import parse_paths
    from nemo_cosmos.inference.predict2_flags import build_parser, run_script

    run_script("video2world", parse_paths(build_parser("video2world", __doc__ or ""), sys.argv[1:]))


if __name__ == "__main__":
    run_tool(main)
