"""The parsers of the Cosmos-Predict2 commands: names and defaults of their flags."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import get_args

from nemo_cosmos.choices import Stacking
from nemo_cosmos.data.images import IMAGE_FORMATS
from nemo_cosmos.ending import Flags
from nemo_cosmos.inference.pipelines.text2image import ASPECT_RATIOS
from nemo_cosmos.inference.predict2_network import Kind
from nemo_cosmos.models.text import DEFAULT_TEXT_ENCODER

VIDEO_SIZES = {
    "720": {"1:1": (960, 960), "4:3": (704, 960), "3:4": (960, 704), "16:9": (704, 1280), "9:16": (1280, 704)},
    "480": {"1:1": (480, 480), "4:3": (480, 640), "3:4": (640, 480), "16:9": (432, 768), "9:16": (768, 432)},
}
"""(height, width) in pixels by ``--resolution`` and ``--aspect_ratio``."""
VIDEO_FRAMES = {"10": 61, "16": 93}
"""By ``--fps``."""
RATIO = "16:9"
REFINER = "nvidia/Cosmos-Reason1-7B"


@dataclass(frozen=True)
class Script:
    """What one command makes, and how its batches name it.

    Attributes:
        makes: in words.
        suffixes: of the files that it writes; the first one by default.
        output_key, input_key: keys of a batch's entries; None for no input.
        given: pixel frames that are given by the values of ``--num_conditional_frames``.
        usual_given: its default.
    """

    makes: str
    suffixes: tuple[str, ...]
    output_key: str
    input_key: str | None = None
    given: Mapping[int, int] = field(default_factory=dict)
    usual_given: int = 1


SCRIPTS: Mapping[Kind, Script] = {
    "text2image": Script("image", tuple(f".{name}" for name in IMAGE_FORMATS), "output_image"),
    "video2world": Script("video", (".mp4",), "output_video", "input_video", {1: 1, 5: 5}),
    # The released command counts pixel frames, the experiments latent ones; 2 can only be the latter.
    "multiview": Script("multiview video", (".mp4",), "output_video", "input_video", {0: 0, 1: 1, 2: 5, 5: 5}),
}


def build_parser(kind: Kind, description: str) -> argparse.ArgumentParser:
    """The parser of one script; ``description`` is shown as it is, with its example."""
    parser = Flags(description=description, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False)
    script, video, several = SCRIPTS[kind], kind != "text2image", kind == "multiview"
    add, makes = parser.add_argument, script.makes
    add("--model_size", help="2B, 14B or Tiny (that of --dit_path, else 2B; Tiny with --checkpoint_dir "
        "nemo-cosmos-tiny)")  # fmt: skip
    add("--dit_path", type=Path, help="weights: .pt file, with or without adapters in it, run folder or diffusers "
        "folder (the released ones below --checkpoint_dir)")  # fmt: skip
    add("--load_ema", action="store_true", help="averaged weights instead of the regular ones")
    add("--lora_path", action="append", metavar="PATH[:WEIGHT]",
        help="adapters: PEFT folder, .safetensors or .pt file; may be given several times")  # fmt: skip
    add("--lora_alpha", type=float, help="alpha of adapters whose file does not say it (their rank)")
    if several:
        _add_views(parser)
    else:
        add("--prompt", help=f"what the {makes} shows")
    if kind == "video2world":
        add("--input_path", type=Path, help="image or video to start from")
        add("--num_conditional_frames", type=int, default=1, help="last frames of a video, 1 or 5 (%(default)s)")
        add("--fps", choices=list(VIDEO_FRAMES), help="16 for 93 frames or 10 for 61 (as a run, else 16)")
    if video:
        add("--resolution", choices=list(VIDEO_SIZES), help="rows: 480 or 720 (that of a run, else 720)")
        add("--guidance", type=float, help="g in cond + g * (cond - uncond) (7; of nemo-cosmos-tiny 1)")
        add("--num_gpus", type=int, default=1, help="processes started by torchrun that share a video (%(default)s)")
    else:
        add("--distill_steps", type=int, default=0, help="0: no distilled networks are run here")
        add("--use_fast_tokenizer", action="store_true", help="refused: of the 0.6B network")
    fields = " and ".join(key for key in (script.input_key, "prompt", script.output_key) if key is not None)
    add("--batch_input_json", type=Path, help=f"JSON list of objects with {fields}, instead of --prompt")
    empty = "(the one that diffusers has; empty: zero embedding)" if video else "(none: zero embedding)"
    add("--negative_prompt", help=f"text of the unconditional branch {empty}")
    add("--aspect_ratio", choices=list(ASPECT_RATIOS), help=f"width to height (that of a run, else {RATIO})")
    add("--height", type=int, help="pixels, with --width instead of --aspect_ratio")
    add("--width", type=int, help="pixels")
    if video:
        add(
            "--num_frames",
            type=int,
            help="frames of the video (a run's, else " + ("29 of each view)" if several else "by --fps)"),
        )
    add("--num_steps", type=int, default=35, help="sampler steps (%(default)s)")
    add("--seed", type=int, default=0, help="of the noise (%(default)s)")
    default = Path(f"output/generated_{'video' if video else 'image'}{'.mp4' if video else '.jpg'}")
    add("--save_path", type=Path, default=default, help="file to write (%(default)s)")
    add("--overwrite", action="store_true", help=f"make a finished {makes} again")
    add("--checkpoint_dir", type=Path, default=Path("checkpoints"), help="root of the released models (%(default)s)")
    add("--tokenizer_dir", "--tokenizer", type=Path,
        help="Wan VAE: tokenizer.pth, its folder or one of diffusers (beside the released weights)")  # fmt: skip
    add("--text_encoder_dir", "--text_encoder", "--pretrained_model_name_or_path", dest="text_encoder",
        help=f"T5, folder or repository ({DEFAULT_TEXT_ENCODER}, below --checkpoint_dir where it is)")  # fmt: skip
    add("--disable_guardrail", action="store_true", help="no checks; without it they run where they are installed")
    add("--offload_guardrail", action="store_true", help="it leaves the device while it is not in use")
    add("--offload_text_encoder", action="store_true", help="it leaves the device while it is not in use")
    add("--downcast_text_encoder", action="store_true", help="text encoder in bf16")
    if kind == "video2world":
        add("--prompt_refiner_dir", type=Path,
            help=f"model that expands prompts (checkpoint_dir/{REFINER} where it is)")  # fmt: skip
    if video:
        none = "no model expands the captions of several cameras: as without it"
        add("--disable_prompt_refiner", action="store_true", help=none if several else "use the prompts as they are")
        add("--offload_prompt_refiner", action="store_true",
            help=none if several else "it leaves the device while it is not in use")  # fmt: skip
        add("--natten", action="store_true", help="refused: sparse attention is not run here")
    add("--use_cuda_graphs", action="store_true", help="refused: graphs are not recorded here")
    add("--benchmark", action="store_true", help="refused: nemo-cosmos bench measures")
    return parser


def _add_views(parser: argparse.ArgumentParser) -> None:
    """The flags that say which cameras there are, and what each is told and given."""
    add = parser.add_argument
    add("--rig", help="YAML file of the cameras, or waymo, av7, av6 (those of a run, else --n_views of av7)")
    add("--n_views", type=int, help="cameras with the ids from 0 on, where no rig names them (a run's, else 1)")
    add("--prompt", help="caption of the front camera; or .txt with a line for each camera, .json or .yaml with texts "
        "by camera, a folder of CAMERA.txt, .pt with embeddings")  # fmt: skip
    add("--input_path", type=Path, help="one video of all views (--input_stacking), or a folder with CAMERA.mp4 or "
        "CAMERA/CLIP.mp4; {camera} in a path stands for each")  # fmt: skip
    add("--input_stacking", choices=get_args(Stacking), default="time",
        help="one input video holds the views one after another, or one below the other (%(default)s)")  # fmt: skip
    add("--output_stacking", choices=get_args(Stacking), help="the same of the one that is written (vertical)")
    add("--num_conditional_frames", type=int, default=1, help="last frames taken of each view: 0, 1 or 5, which are "
        "0, 1 and 2 latent frames; 2 means 5 (%(default)s)")  # fmt: skip
    add("--fps", type=float, help="frames per second, of the files and for the network (a run's, else 10)")
    add("--rope_fps", type=float, help="frames per second that the network alone is told (--fps)")
