"""The flags of the Cosmos example scripts, for ``examples/video2world.py`` and ``examples/text2world.py``."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from nemo_cosmos.ending import Flags, report_to
from nemo_cosmos.errors import InputError
from nemo_cosmos.inference.config import (
    RELEASED_GUIDANCE,
    TINY_FRAMES,
    TINY_GUIDANCE,
    TINY_NETWORKS,
    TINY_SIZE,
    GenerationConfig,
)
from nemo_cosmos.inference.job import GenerationJob, JobSummary, run_job
from nemo_cosmos.inference.job_settings import Part
from nemo_cosmos.inference.places import find_network
from nemo_cosmos.inference.prompts import default_negative_prompt
from nemo_cosmos.inference.requests import GenerationRequest, collect_requests
from nemo_cosmos.logs import log_shown
from nemo_cosmos.models.text import DEFAULT_TEXT_ENCODER
from nemo_cosmos.tiny import PARTS, TINY, TinyPart, packaged

Kind = Literal["Video2World", "Text2World"]
_OFFLOAD: dict[str, Part] = {
    "offload_diffusion_transformer": "network",
    "offload_tokenizer": "tokenizer",
    "offload_text_encoder_model": "text_encoder",
    "offload_prompt_upsampler": "upsampler",
    "offload_guardrail_models": "guardrail",
}
TOKENIZER = "Cosmos-Tokenize1-CV8x8x8-720p"
UPSAMPLERS: dict[Kind, str] = {
    "Video2World": "Pixtral-12B",
    "Text2World": "Cosmos-UpsamplePrompt1-12B-Text2World",
}


def build_parser(kind: Kind, description: str) -> argparse.ArgumentParser:
    """The parser of one script; ``description`` is shown as it is, with its example."""
    parser = Flags(description=description, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False)
    add = parser.add_argument
    default_dit = f"Cosmos-Predict1-7B-{kind}"
    add_models(parser, default_dit)
    add(
        "--prompt_upsampler_dir",
        default=UPSAMPLERS[kind],
        help="transformers image-text-to-text model: below checkpoint_dir, a path or a repository (%(default)s)",
    )
    add("--disable_prompt_upsampler", action="store_true", help="use the prompts as they are")
    if kind == "Video2World":
        add("--input_image_or_video_path", type=Path, help="image or video to start from")
        add("--num_input_frames", type=int, default=1, help="last frames taken from a video, 1 + 8k (%(default)s)")
        add("--overlap_frames", type=int, default=9, help="frames between chunks of a long video (%(default)s)")
    else:
        add(
            "--word_limit_to_skip_upsampler",
            type=int,
            default=250,
            help="longer prompts are not upsampled (%(default)s)",
        )
    add("--prompt", help="what the video shows")
    add("--batch_input_path", type=Path, help="JSONL file, one video a line, with the fields prompt and visual_input")
    add("--negative_prompt", help="text of the unconditional branch; empty for none (this project's own wording)")
    add_common(parser, frames=121, size=(704, 1280))
    return parser


def add_models(parser: argparse.ArgumentParser, network: str) -> None:
    """Flags that say where the models are; ``network`` is the default folder of the network."""
    add = parser.add_argument
    add("--checkpoint_dir", default="checkpoints", help=f"root of all weights, or {TINY} (%(default)s)")
    add("--tokenizer_dir", help=f"below checkpoint_dir or a path ({TOKENIZER}; that of {TINY})")
    add(
        "--diffusion_transformer_dir",
        help=f"folder with model.pt, or run folder; below checkpoint_dir or a path ({network}; {_tiny(network)} where "
        "checkpoint_dir has that alone)",
    )
    parser.set_defaults(default_network=network)
    add("--preset", help="network of model.pt, where the folder's name does not tell, e.g. predict1-7b-video2world")
    add("--text_encoder_dir", help=f"T5 encoder (checkpoint_dir/{DEFAULT_TEXT_ENCODER}, else that repository)")


def add_common(parser: argparse.ArgumentParser, *, frames: int, size: tuple[int, int]) -> None:
    """Flags of every script, with its defaults of frames and (height, width)."""
    add = parser.add_argument
    add("--video_save_name", default="output", help="file name without suffix (%(default)s)")
    add("--video_save_folder", type=Path, default=Path("outputs"), help="(%(default)s)")
    add("--num_steps", type=int, default=35, help="sampler steps (%(default)s)")
    small = f"of {TINY}"
    guidance = f"({RELEASED_GUIDANCE:g}; {small} {TINY_GUIDANCE:g})"
    add("--guidance", type=float, help=f"g in cond + g * (cond - uncond) {guidance}")
    add("--num_video_frames", type=int, help=f"frames of the video ({frames}; {small} {TINY_FRAMES})")
    add("--height", type=int, help=f"pixels ({size[0]}; {small} {TINY_SIZE[0]})")
    add("--width", type=int, help=f"pixels ({size[1]}; {small} {TINY_SIZE[1]})")
    parser.set_defaults(default_frames=frames, default_size=size)
    add("--fps", type=float, help="frames per second (24; with a run folder as nemo-cosmos generate chooses)")
    add("--overwrite", action="store_true", help="make finished videos again")
    add("--seed", type=int, default=1, help="of the noise (%(default)s)")
    add("--num_gpus", type=int, default=1, help="processes started by torchrun that share a video (%(default)s)")
    for flag, part in _OFFLOAD.items():
        add(f"--{flag}", action="store_true", help=f"{part} leaves the device while it is not in use")
    add("--disable_guardrail", action="store_true", help="no checks; without it they run where they are installed")


def run_script(kind: Kind, arguments: argparse.Namespace) -> JobSummary:
    """Runs one script's job.

    Raises:
        InputError: flags that contradict each other, or a folder that is not there.
    """
    report_to(arguments.video_save_folder)
    root = root_of(arguments)
    requests = _requests(kind, arguments)
    job = job_of(arguments)
    negative = default_negative_prompt() if arguments.negative_prompt is None else arguments.negative_prompt
    is_video = kind == "Video2World"
    config = GenerationConfig(
        **trained_for(arguments, job),
        overlap_frames=arguments.overlap_frames if is_video else 1,
        fps=rate_of(arguments, job),
        num_input_frames=arguments.num_input_frames if is_video else 1,
        num_steps=arguments.num_steps,
        negative_prompt=negative.strip() or None,
        seed=arguments.seed,
    )
    job = replace(
        job,
        config=config,
        upsampler=None if arguments.disable_prompt_upsampler else upsampler_in(root, arguments.prompt_upsampler_dir),
        upsampler_word_limit=None if is_video else arguments.word_limit_to_skip_upsampler,
    )
    with log_shown():
        return run_job(job, requests)


def rate_of(arguments: argparse.Namespace, job: GenerationJob) -> float | None:
    """Frames per second: the user's, else 24; None where a run may say it."""
    return arguments.fps or (None if job.weights.is_dir() else 24.0)


def trained_for(arguments: argparse.Namespace, job: GenerationJob) -> dict[str, Any]:
    """Height, width, frames and guidance of the video: the user's, else those that the network was released for."""
    tiny = job.preset in TINY_NETWORKS
    height, width = TINY_SIZE if tiny else arguments.default_size
    frames = TINY_FRAMES if tiny else arguments.default_frames
    named = {"height": arguments.height, "width": arguments.width, "num_frames": arguments.num_video_frames}
    named["guidance"] = arguments.guidance
    guidance = TINY_GUIDANCE if tiny else RELEASED_GUIDANCE
    defaults = {"height": height, "width": width, "num_frames": frames, "guidance": guidance}
    return {name: defaults[name] if value is None else value for name, value in named.items()}


def root_of(arguments: argparse.Namespace) -> Path:
    """Where all weights are: --checkpoint_dir, or the folder that the package brings along."""
    return packaged(arguments.checkpoint_dir) or Path(arguments.checkpoint_dir)


def _tiny(network: str) -> str:
    """The folder in nemo-cosmos-tiny that stands where that of a large network does."""
    return network.replace("-7B-", "-Tiny-")


def job_of(arguments: argparse.Namespace) -> GenerationJob:
    """The models and places that the flags of every script name.

    Raises:
        InputError: one of them is not there.
    """
    root, preset = root_of(arguments), arguments.preset
    network, tokenizer = arguments.diffusion_transformer_dir, arguments.tokenizer_dir
    if network is None:
        network = arguments.default_network
        if not (root / network).exists() and (root / _tiny(network)).exists():
            network = _tiny(network)
    weights = below(root, network, "--diffusion_transformer_dir", "network")
    weights, preset = find_network(weights, preset)
    if tokenizer is None:
        tokenizer = PARTS["tokenizer"] if preset in TINY_NETWORKS else TOKENIZER
    return GenerationJob(
        weights=weights,
        tokenizer=below(root, tokenizer, "--tokenizer_dir", "tokenizer"),
        output=arguments.video_save_folder,
        preset=preset,
        text_encoder=text_encoder_in(root, arguments.text_encoder_dir),
        guardrail=False if arguments.disable_guardrail else None,
        offload=frozenset(part for flag, part in _OFFLOAD.items() if getattr(arguments, flag)),
        overwrite=arguments.overwrite,
        num_gpus=arguments.num_gpus,
    )


def _requests(kind: Kind, arguments: argparse.Namespace) -> list[GenerationRequest]:
    given = getattr(arguments, "input_image_or_video_path", None)
    if arguments.batch_input_path is not None:
        requests = collect_requests(batch=arguments.batch_input_path)
    else:
        if kind == "Text2World" and not arguments.prompt:
            raise InputError("--prompt or --batch_input_path is required")
        if kind == "Video2World" and given is None:
            raise InputError("--input_image_or_video_path or --batch_input_path is required")
        prompt = arguments.prompt
        requests = [
            GenerationRequest(arguments.video_save_name, (prompt or "").strip(), given, has_prompt=prompt is not None)
        ]
    for request in requests:
        if kind == "Video2World" and request.visual_input is None:
            raise InputError(f"{arguments.batch_input_path}: request {request.name!r} has no visual_input")
        if arguments.disable_prompt_upsampler and not request.prompt and not request.has_prompt:
            raise InputError(f"request {request.name!r} has no prompt: required with --disable_prompt_upsampler")
    return requests


def below(root: Path, name: str, flag: str, part: TinyPart | None = None) -> Path:
    """The path of this name below ``root``, or the name as a path or as that of a packaged ``part``; InputError names
    the flag where nothing of these exists."""
    for path in (root / name, packaged(name, part) or Path(name)):
        if path.exists():
            return path
    raise InputError(f"{flag} {name}: neither {root / name} nor {name} exists")


def text_encoder_in(root: Path, name: str | None, flag: str = "--text_encoder_dir") -> str:
    """The text encoder of this name, below ``root`` or a path; by default the one there, else a repository."""
    if name is not None:
        return str(below(root, name, flag, "text_encoder"))
    local = root / DEFAULT_TEXT_ENCODER
    return str(local) if local.is_dir() else DEFAULT_TEXT_ENCODER


def upsampler_in(root: Path, name: str) -> str:
    """A folder below ``root``, a folder, or a repository (which has a slash in its name)."""
    for path in (root / name, Path(name)):
        if path.is_dir():
            return str(path)
    if name.count("/") == 1 and not name.startswith((".", "/")):
        return name
    raise InputError(
        f"--prompt_upsampler_dir {name}: {root / name} does not exist. Name any image-text-to-text model of "
        "transformers (a folder or a repository), or pass --disable_prompt_upsampler to use the prompt as it is"
    )
