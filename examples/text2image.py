"""Generate an image from a text with Cosmos-Predict2.

python examples/text2image.py --model_size 2B \\
    --dit_path checkpoints/posttraining/text2image/2b_cosmos_nemo_assets/checkpoints/model/iter_000001000.pt \\
    --prompt "An image of sks teal robot." --save_path output/robot.jpg

Averaged weights, and two adapters:

python examples/text2image.py --load_ema \\
    --dit_path checkpoints/posttraining/text2image/2b_cosmos_nemo_assets/checkpoints/model/iter_000001000.pt \\
    --lora_path style.safetensors:0.7 --lora_path robot.pt:0.3 \\
    --prompt "An image of sks teal robot." --save_path output/robot_ema.jpg
"""

import sys

from nemo_cosmos.commands.options import run_tool


def main() -> None:
    from nemo_cosmos.data.listing import parse_paths
    from nemo_cosmos.inference.predict2_flags import build_parser, run_script

    run_script("text2image", parse_paths(build_parser("text2image", __doc__ or ""), sys.argv[1:]))


if __name__ == "__main__":
    run_tool(main)
