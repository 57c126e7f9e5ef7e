"""Generate a video of each of six cameras around a car that continues videos of them.

python examples/video2world_multiview.py --checkpoint_dir checkpoints \\
    --diffusion_transformer_dir Cosmos-Predict1-7B-Video2World-Sample-AV-Multiview \\
    --input_image_or_video_path my_clips \\
    --prompt "A car drives through a city at dusk." --prompt_left "Parked cars and trees pass by." \\
    --video_save_name drive

On 8 GPUs:

torchrun --nproc_per_node=8 examples/video2world_multiview.py --num_gpus 8 --checkpoint_dir checkpoints \\
    --input_image_or_video_path my_clips \\
    --prompt "A car drives through a city at dusk." --video_save_name drive
"""

import sys

from nemo_cosmos.commands.options import run_tool


def main() -> None:
    from nemo_cosmos.data.listing import parse_paths
    from nemo_cosmos.inference.known_views_flags import build_parser, run_script

    run_script("Video2World", parse_paths(build_parser("Video2World", __doc__ or ""), sys.argv[1:]))


if __name__ == "__main__":
    run_tool(main)
