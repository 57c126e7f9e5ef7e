"""Generate a video of each camera of a rig with Cosmos-Predict2, all of the same moments.

python examples/multiview.py --model_size 2B --n_views 7 --input_path my_clips --prompt "A car drives on a highway." \\
    --num_conditional_frames 1 --fps 10 --guidance 7.0 --disable_prompt_refiner --save_path output/drive.mp4

A network that was trained on the five cameras of Waymo, its averaged weights, on 8 GPUs:

torchrun --nproc_per_node=8 examples/multiview.py --num_gpus 8 --model_size 2B --rig waymo --load_ema \\
    --dit_path checkpoints/posttraining/multiview/2b_720p_10fps_7views_29frames_waymo5views/checkpoints/model/iter_000001000.pt \\
    --input_path "datasets/waymo/videos/{camera}/clip.mp4" --prompt "A car drives on a highway." --save_path output/waymo.mp4
"""  # noqa: E501

import sys

from nemo_cosmos.commands.options import run_tool


def main() -> None:
    from nemo_cosmos.data.listing import parse_paths
    from nemo_cosmos.inference.predict2_flags import build_parser, run_script

    run_script("multiview", parse_paths(build_parser("multiview", __doc__ or ""), sys.argv[1:]))


if __name__ == "__main__":
    run_tool(main)
