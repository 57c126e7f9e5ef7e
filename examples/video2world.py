"""Generate a video that continues an image or a video.

python examples/video2world.py --checkpoint_dir checkpoints \\
    --diffusion_transformer_dir Cosmos-Predict1-7B-Video2World \\
    --input_image_or_video_path first_frame.jpg --prompt "A robot arm lifts a red cup." \\
    --disable_prompt_upsampler --video_save_name robot

On 8 GPUs:

torchrun --nproc_per_node=8 examples/video2world.py --num_gpus 8 --checkpoint_dir checkpoints \\
    --diffusion_transformer_dir Cosmos-Predict1-7B-Video2World \\
    --input_image_or_video_path first_frame.jpg --prompt "A robot arm lifts a red cup." \\
    --disable_prompt_upsampler --video_save_name robot
"""

import sys

from nemo_cosmos.commands.options import run_tool


def main() -> None:
    from nemo_cosmos.data.listing import parse_paths
    from nemo_cosmos.inference.known_flags import build_parser, run_script

    run_script("Video2World", parse_paths(build_parser("Video2World", __doc__ or ""), sys.argv[1:]))


if __name__ == "__main__":
    run_tool(main)
