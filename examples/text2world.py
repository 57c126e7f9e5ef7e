"""Generate a video from a text.

python examples/text2world.py --checkpoint_dir checkpoints \\
    --diffusion_transformer_dir Cosmos-Predict1-7B-Text2World \\
    --prompt "A robot arm lifts a red cup from a wooden table." \\
    --disable_prompt_upsampler --video_save_name robot

On 8 GPUs:

torchrun --nproc_per_node=8 examples/text2world.py --num_gpus 8 --checkpoint_dir checkpoints \\
    --diffusion_transformer_dir Cosmos-Predict1-7B-Text2World \\
    --prompt "A robot arm lifts a red cup from a wooden table." \\
    --disable_prompt_upsampler --video_save_name robot
"""

import sys

from nemo_cosmos.errors import InputError
from nemo_cosmos.inference.known_flags import build_parser, run_script


def main() -> None:
    arguments = build_parser("Text2World", __doc__ or "").parse_args()
    try:
        run_script("Text2World", arguments)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
