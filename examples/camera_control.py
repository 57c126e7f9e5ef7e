"""Generate a video from an image or a video along a trajectory of the camera.

python examples/camera_control.py --checkpoint_dir checkpoints \\
    --nemo_checkpoint checkpoints/posttraining/diffusion_camera_control/camera_control_7b_dl3dv \\
    --conditioned_image_or_video_path first_frame.jpg --camera_extrinsics_path transforms.json \\
    --prompt "A kitchen with a wooden table." --video_save_name kitchen

The trajectory by name instead, an amount after a colon, moves at once joined by +:
--trajectory orbit_left:0.3+crane_up:0.1
It is drawn in VIDEO_SAVE_NAME_trajectory.png before the video is made.

On 8 GPUs:

torchrun --nproc_per_node=8 examples/camera_control.py --num_devices 8 --checkpoint_dir checkpoints \\
    --nemo_checkpoint checkpoints/posttraining/diffusion_camera_control/camera_control_7b_dl3dv \\
    --conditioned_image_or_video_path first_frame.jpg --trajectory dolly_in:0.5 \\
    --prompt "A kitchen with a wooden table." --video_save_name kitchen
"""

import sys

from nemo_cosmos.commands.options import run_tool


def main() -> None:
    from nemo_cosmos.data.listing import parse_paths
    from nemo_cosmos.inference.camera_flags import build_parser, run_script

    run_script(parse_paths(build_parser(__doc__ or ""), sys.argv[1:]))


if __name__ == "__main__":
    run_tool(main)
