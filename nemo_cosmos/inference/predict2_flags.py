"""The flags of the Cosmos-Predict2 commands: ``text2image.py`` and ``video2world_predict2.py`` in ``examples/``."""

from __future__ import annotations

import argparse
import logging
from pathlib import Path
from typing import Any

import torch

from nemo_cosmos.checkpoint.sources import open_weights
from nemo_cosmos.choices import Part
from nemo_cosmos.data.images import IMAGE_FORMATS, is_image
from nemo_cosmos.ending import Flags, report_to
from nemo_cosmos.errors import InputError
from nemo_cosmos.inference.batch_json import Asked, request_for, requests_from_json
from nemo_cosmos.inference.config import GenerationConfig, weight_defaults
from nemo_cosmos.inference.job import GenerationJob, JobSummary, run_job
from nemo_cosmos.inference.loading import describe_network
from nemo_cosmos.inference.pipelines import pipeline_for
from nemo_cosmos.inference.pipelines.text2image import ASPECT_RATIOS
from nemo_cosmos.inference.places import find_adapters, find_tokenizer
from nemo_cosmos.inference.predict2_network import SIZES, Kind, Network, identify, released_file
from nemo_cosmos.inference.prompts import released_negative_prompt
from nemo_cosmos.logs import log_shown
from nemo_cosmos.models.text import DEFAULT_TEXT_ENCODER

logger = logging.getLogger(__name__)

VIDEO_SIZES = {
    "720": {"1:1": (960, 960), "4:3": (704, 960), "3:4": (960, 704), "16:9": (704, 1280), "9:16": (1280, 704)},
    "480": {"1:1": (480, 480), "4:3": (480, 640), "3:4": (640, 480), "16:9": (432, 768), "9:16": (768, 432)},
}
"""(height, width) in pixels by ``--resolution`` and ``--aspect_ratio``."""
VIDEO_FRAMES = {"10": 61, "16": 93}
"""By ``--fps``."""
_RATIO = "16:9"
_REFINER = "nvidia/Cosmos-Reason1-7B"
_OFFLOAD: dict[str, Part] = {
    "offload_guardrail": "guardrail",
    "offload_prompt_refiner": "upsampler",
    "offload_text_encoder": "text_encoder",
}
_SMALLEST = "the 0.6B network has a tokenizer and a sampler of its own, which are not part of this project"
_REFUSED: dict[str, str] = {
    "use_fast_tokenizer": _SMALLEST,
    "natten": "networks with sparse attention are not run here; leave it out for dense attention",
    "use_cuda_graphs": "graphs are not recorded here, with the same result; leave it out",
    "benchmark": "time is measured by nemo-cosmos bench, and beside every result in its .json; leave it out",
}
"""Flags of the released commands that nothing here answers to."""


def build_parser(kind: Kind, description: str) -> argparse.ArgumentParser:
    """The parser of one script; ``description`` is shown as it is, with its example."""
    parser = Flags(description=description, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False)
    add, video = parser.add_argument, kind == "video2world"
    makes, suffix = ("video", ".mp4") if video else ("image", ".jpg")
    add("--model_size", help="2B or 14B (that of --dit_path, else 2B)")
    add("--dit_path", type=Path, help="weights: .pt file, with or without adapters in it, run folder or diffusers "
        "folder (the released ones below --checkpoint_dir)")  # fmt: skip
    add("--load_ema", action="store_true", help="averaged weights instead of the regular ones")
    add("--lora_path", action="append", metavar="PATH[:WEIGHT]",
        help="adapters: PEFT folder, .safetensors or .pt file; may be given several times")  # fmt: skip
    add("--lora_alpha", type=float, help="alpha of adapters whose file does not say it (their rank)")
    add("--prompt", help=f"what the {makes} shows")
    if video:
        add("--input_path", type=Path, help="image or video to start from")
        add(
            "--num_conditional_frames",
            type=int,
            default=1,
            help="last frames taken from a video, 1 or 5 (%(default)s)",
        )
        add("--resolution", choices=list(VIDEO_SIZES), help="rows: 480 or 720 (that of a run, else 720)")
        add("--fps", choices=list(VIDEO_FRAMES), help="16 for 93 frames or 10 for 61 (as a run, else 16)")
        add("--guidance", type=float, default=7.0, help="g in cond + g * (cond - uncond) (%(default)s)")
        add("--num_gpus", type=int, default=1, help="processes started by torchrun that share a video (%(default)s)")
    else:
        add("--distill_steps", type=int, default=0, help="0: no distilled networks are run here")
        add("--use_fast_tokenizer", action="store_true", help="refused: of the 0.6B network")
    fields = "input_video, prompt and output_video" if video else "prompt and output_image"
    add("--batch_input_json", type=Path, help=f"JSON list of objects with {fields}, instead of --prompt")
    empty = "(the one that diffusers has; empty: zero embedding)" if video else "(none: zero embedding)"
    add("--negative_prompt", help=f"text of the unconditional branch {empty}")
    add("--aspect_ratio", choices=list(ASPECT_RATIOS), help=f"width to height (that of a run, else {_RATIO})")
    add("--height", type=int, help="pixels, with --width instead of --aspect_ratio")
    add("--width", type=int, help="pixels")
    if video:
        add("--num_frames", type=int, help="frames of the video (a run's, else by --fps)")
    add("--num_steps", type=int, default=35, help="sampler steps (%(default)s)")
    add("--seed", type=int, default=0, help="of the noise (%(default)s)")
    add(
        "--save_path", type=Path, default=Path(f"output/generated_{makes}{suffix}"), help="file to write (%(default)s)"
    )
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
    if video:
        add(
            "--prompt_refiner_dir",
            type=Path,
            help=f"model that expands prompts (checkpoint_dir/{_REFINER} where it is)",
        )
        add("--disable_prompt_refiner", action="store_true", help="use the prompts as they are")
        add("--offload_prompt_refiner", action="store_true", help="it leaves the device while it is not in use")
        add("--natten", action="store_true", help="refused: sparse attention is not run here")
    add("--use_cuda_graphs", action="store_true", help="refused: graphs are not recorded here")
    add("--benchmark", action="store_true", help="refused: nemo-cosmos bench measures")
    return parser


def run_script(kind: Kind, arguments: argparse.Namespace) -> list[JobSummary]:
    """Runs one script's requests, those for one folder as one job.

    Raises:
        InputError: flags that contradict each other or that nothing answers to, or a model that is not there or not
            the one that is meant.
    """
    report_to(arguments.save_path.parent)
    _refuse(arguments)
    with log_shown():
        asked = _asked(kind, arguments)
        network = _network(kind, arguments)
        settings = _settings(kind, arguments, network)
        jobs: dict[tuple[Path, str], list[Asked]] = {}
        for one in asked:
            jobs.setdefault((one[1].parent, one[1].suffix), []).append(one)
        job = _job(kind, arguments, network)
        dit = describe_network(network.path, network.preset)
        out = []
        for (folder, suffix), group in jobs.items():
            image = {"image_format": suffix[1:]} if kind == "text2image" else {}
            config = pipeline_for(dit).configure({**settings, **image})
            out.append(run_job(GenerationJob(output=folder, config=config, **job), [request for request, _ in group]))
        return out


def _refuse(arguments: argparse.Namespace) -> None:
    for flag, why in _REFUSED.items():
        if getattr(arguments, flag, False):
            raise InputError(f"--{flag}: {why}")
    if getattr(arguments, "distill_steps", 0):
        raise InputError(f"--distill_steps {arguments.distill_steps}: only the 0.6B network is distilled; {_SMALLEST}")
    if arguments.model_size is not None and arguments.model_size not in SIZES:
        why = f": {_SMALLEST}" if arguments.model_size == "0.6B" else ""
        raise InputError(f"--model_size {arguments.model_size}{why}; expected {' or '.join(SIZES)}")
    if getattr(arguments, "num_conditional_frames", 1) not in (1, 5):
        raise InputError(f"--num_conditional_frames {arguments.num_conditional_frames}: expected 1 or 5")
    if (arguments.height is None) != (arguments.width is None):
        raise InputError("--height and --width belong together: give both or none")
    named = [flag for flag in ("aspect_ratio", "resolution") if getattr(arguments, flag, None) is not None]
    if arguments.height is not None and named:
        raise InputError(f"--{named[0]} and --height with --width both name the size; leave one of them out")


def _asked(kind: Kind, arguments: argparse.Namespace) -> list[Asked]:
    video = kind == "video2world"
    suffixes = [".mp4"] if video else [f".{name}" for name in IMAGE_FORMATS]
    if arguments.batch_input_json is not None:
        given = [flag for flag in ("prompt", "input_path") if getattr(arguments, flag, None) is not None]
        if given:
            raise InputError(f"--{given[0]} and --batch_input_json both say what to generate; leave one of them out")
        asked = requests_from_json(
            arguments.batch_input_json,
            output_key="output_video" if video else "output_image",
            input_key="input_video" if video else None,
            suffix=suffixes[0],
        )
    else:
        if not (arguments.prompt or "").strip():
            raise InputError("--prompt or --batch_input_json is required")
        if video and arguments.input_path is None:
            raise InputError("--input_path or --batch_input_json is required: the image or video to start from")
        given_path = arguments.input_path if video else None
        asked = [(request_for(arguments.save_path, arguments.prompt, given_path, where="--save_path"),
                  arguments.save_path)]  # fmt: skip
    for request, file in asked:
        given_path, frames = request.visual_input, getattr(arguments, "num_conditional_frames", 1)
        if frames > 1 and given_path is not None and given_path.is_file() and is_image(given_path):
            raise InputError(f"{given_path} is an image: it gives 1 frame, not --num_conditional_frames {frames}")
        if file.suffix.lower() not in suffixes:
            raise InputError(f"{file}: expected the name of a file to write that ends in {' or '.join(suffixes)}")
    return asked


def _network(kind: Kind, arguments: argparse.Namespace) -> Network:
    size, path = arguments.model_size, arguments.dit_path
    weights = "ema" if arguments.load_ema else "reg"
    if path is None:
        which = {"resolution": arguments.resolution or "720", "fps": arguments.fps or "16"} if _is_video(kind) else {}
        path = released_file(arguments.checkpoint_dir, kind, size or SIZES[0], **which)
        if not path.is_file():
            raise InputError(f"{path} is not there: name the weights with --dit_path, or download the released ones "
                             "(tools/download_predict2_checkpoints.py)")  # fmt: skip
    if arguments.load_ema and path.exists():
        try:
            open_weights(path, weights="ema", verify_files="size", lora_alpha=arguments.lora_alpha, exactly=True)
        except InputError as error:
            raise InputError(f"--load_ema: {error}") from error
    return identify(path, kind, size, weights)  # type: ignore[arg-type]


def _is_video(kind: Kind) -> bool:
    return kind == "video2world"


def _settings(kind: Kind, arguments: argparse.Namespace, network: Network) -> dict[str, Any]:
    """Of ``GenerationConfig`` by name; sizes and lengths that are not named are those of a run, else the released."""
    settings: dict[str, Any] = {"num_steps": arguments.num_steps, "seed": arguments.seed}
    settings |= {"height": arguments.height, "width": arguments.width}
    sizes: dict[str, tuple[int, int]] = ASPECT_RATIOS
    if _is_video(kind):
        negative = arguments.negative_prompt
        settings |= {
            "guidance": arguments.guidance,
            "num_input_frames": arguments.num_conditional_frames,
            "negative_prompt": released_negative_prompt() if negative is None else negative.strip() or None,
            "num_frames": arguments.num_frames or (VIDEO_FRAMES[arguments.fps] if arguments.fps else None),
            "fps": float(arguments.fps) if arguments.fps else None,
        }
        sizes = VIDEO_SIZES[arguments.resolution or "720"]
    else:
        settings["negative_prompt"] = (arguments.negative_prompt or "").strip() or None
    named, known = arguments.aspect_ratio or getattr(arguments, "resolution", None), _run_says(network.path)
    if settings["height"] is None and (named or not known):
        settings["height"], settings["width"] = sizes[arguments.aspect_ratio or _RATIO]
    if _is_video(kind) and settings["num_frames"] is None and not known:
        settings |= {"num_frames": VIDEO_FRAMES["16"], "fps": settings["fps"] or 16.0}
    return settings


def _run_says(path: Path) -> bool:
    """Whether weights are of a run that tells size and length of what it was trained on."""
    try:
        found = weight_defaults(path, GenerationConfig(), (0, 0))
    except InputError as error:
        logger.info("the size and length of the released networks are taken: %s", error)
        return False
    return found.size != (0, 0)


def _job(kind: Kind, arguments: argparse.Namespace, network: Network) -> dict[str, Any]:
    """Of :class:`GenerationJob` by name."""
    root = arguments.checkpoint_dir
    offload = frozenset(part for flag, part in _OFFLOAD.items() if getattr(arguments, flag, False))
    return {
        "weights": network.path,
        "preset": network.preset,
        "kind": "ema" if arguments.load_ema else "reg",
        "tokenizer": _tokenizer(kind, arguments),
        "text_encoder": arguments.text_encoder or _local(root, DEFAULT_TEXT_ENCODER),
        "text_encoder_dtype": torch.bfloat16 if arguments.downcast_text_encoder else torch.float32,
        "lora": find_adapters(arguments.lora_path),
        "lora_alpha": arguments.lora_alpha,
        "upsampler": _refiner(root, arguments) if _is_video(kind) else None,
        "guardrail": False if arguments.disable_guardrail else None,
        "offload": offload,
        "overwrite": arguments.overwrite,
        "num_gpus": getattr(arguments, "num_gpus", None),
    }


def _tokenizer(kind: Kind, arguments: argparse.Namespace) -> Path:
    if arguments.tokenizer_dir is not None:
        return find_tokenizer(arguments.tokenizer_dir)
    size = arguments.model_size or SIZES[0]
    released = released_file(arguments.checkpoint_dir, kind, size).parent / "tokenizer" / "tokenizer.pth"
    if not released.is_file():
        raise InputError(f"{released} is not there: name the Wan VAE with --tokenizer_dir, or download it "
                         "(tools/download_predict2_checkpoints.py)")  # fmt: skip
    return released


def _local(root: Path, name: str) -> str:
    return str(root / name) if (root / name).is_dir() else name


def _refiner(root: Path, arguments: argparse.Namespace) -> str | None:
    given = arguments.prompt_refiner_dir
    if arguments.disable_prompt_refiner:
        if given is not None:
            raise InputError("--disable_prompt_refiner and --prompt_refiner_dir contradict each other")
        return None
    if given is None and not (root / _REFINER).is_dir():
        logger.info("prompts are used as they are: %s is not there", root / _REFINER)
        return None
    return str(given or root / _REFINER)
