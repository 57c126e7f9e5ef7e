"""The flags of ``examples/camera_control.py``, as users of camera control on NeMo know them, and some beside."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from nemo_cosmos.checkpoint.sources import run_of_file
from nemo_cosmos.ending import Flags, report_to
from nemo_cosmos.errors import InputError
from nemo_cosmos.inference.config import GenerationConfig
from nemo_cosmos.inference.job import GenerationJob, JobSummary, run_job
from nemo_cosmos.inference.known_flags import UPSAMPLERS, below, root_of, text_encoder_in, upsampler_in
from nemo_cosmos.inference.loading import describe_network
from nemo_cosmos.inference.pipelines.camera import RATE, CameraPipeline
from nemo_cosmos.inference.places import find_adapters
from nemo_cosmos.inference.prompts import default_negative_prompt
from nemo_cosmos.inference.requests import GenerationRequest, collect_requests
from nemo_cosmos.logs import log_shown
from nemo_cosmos.models.text import DEFAULT_TEXT_ENCODER

PRESET = "predict1-7b-video2world-camera"
FRAMES = 57


def build_parser(description: str) -> argparse.ArgumentParser:
    """The parser of the script; ``description`` is shown as it is, with its example."""
    parser = Flags(description=description, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False)
    add = parser.add_argument
    add("--checkpoint_dir", default="checkpoints", help="root of all weights (%(default)s)")
    add(
        "--nemo_checkpoint",
        "--checkpoint",
        dest="checkpoint",
        help="run folder, one save of it, or .pt file; below checkpoint_dir or a path",
    )
    add("--preset", help=f"network of a .pt file outside a run ({PRESET})")
    add("--weights", choices=("ema", "reg"), default="ema", help="averaged or regular weights of a run (%(default)s)")
    add("--lora_path", action="append", default=[], help="adapters to merge, PATH or PATH:WEIGHT; may be repeated")
    add(
        "--tokenizer_dir", default="Cosmos-Tokenize1-CV8x8x8-720p", help="below checkpoint_dir or a path (%(default)s)"
    )
    add(
        "--t5_cache_dir",
        "--text_encoder_dir",
        dest="text_encoder_dir",
        help=f"T5 encoder, a path or below checkpoint_dir ({DEFAULT_TEXT_ENCODER} there, else that repository)",
    )
    add("--conditioned_image_or_video_path", type=Path, help="image or video to start from")
    add("--num_input_frames", type=int, default=1, help="first frames taken from a video: 1 or 9 (%(default)s)")
    add("--camera_extrinsics_path", help="transforms.json of DL3DV or nerfstudio: the first pose is the first frame's")
    add(
        "--trajectory",
        help="instead: a transforms.json, CSV file or folder of COLMAP, or a move and its amount: orbit_left:0.3",
    )
    add("--resample_trajectory", action="store_true", help="spread all poses of the file over the frames of the video")
    add("--fov", type=float, help="degrees from left to right, where the trajectory does not tell (90)")
    add("--batch_input_path", type=Path,
        help="JSONL file, one video a line, with the fields prompt, visual_input and trajectory")  # fmt: skip
    add("--prompt", help="what the video shows")
    add("--enable_prompt_upsampler", action="store_true", help="expand the prompts")
    add("--prompt_upsampler_dir", default=UPSAMPLERS["Video2World"],
        help="transformers image-text-to-text model: below checkpoint_dir, a path or a repository "
             "(%(default)s)")  # fmt: skip
    add("--negative_prompt", help="text of the unconditional branch; empty for none (this project's own wording)")
    add("--video_save_name", default="output", help="file name without suffix (%(default)s)")
    add(
        "--video_save_path",
        "--video_save_folder",
        dest="video_save_path",
        type=Path,
        default=Path("outputs"),
        help="folder of the videos (%(default)s)",
    )
    add("--num_steps", type=_whole, default=35, help="sampler steps (%(default)s)")
    add("--guidance", type=float, default=7.0, help="g in cond + g * (cond - uncond); both see the rays (%(default)s)")
    add("--num_video_frames", type=int, help=f"frames of the video (the run's, else {FRAMES})")
    add("--height", type=int, help="pixels (the run's, else 704)")
    add("--width", type=int, help="pixels (the run's, else 1280)")
    add("--fps", type=float, help=f"frames per second (that of the run's data, else {RATE:g})")
    add("--seed", type=int, default=1, help="of the noise (%(default)s)")
    add(
        "--num_devices",
        "--cp_size",
        "--num_gpus",
        dest="num_devices",
        type=int,
        default=1,
        help="processes started by torchrun that share a video (%(default)s)",
    )
    add("--overwrite", action="store_true", help="make finished videos again")
    add("--disable_guardrail", action="store_true", help="no checks; without it they run where they are installed")
    return parser


def run_script(arguments: argparse.Namespace) -> JobSummary:
    """Runs the script's job.

    Raises:
        InputError: flags that contradict each other, a file that is not there, a trajectory with too few poses.
    """
    report_to(arguments.video_save_path)
    root = root_of(arguments)
    requests = _requests(arguments)
    if arguments.checkpoint is None:
        raise InputError("--nemo_checkpoint is required: the run folder of a training, or a .pt file")
    weights, preset = below(root, arguments.checkpoint, "--nemo_checkpoint", "network"), arguments.preset
    if (weights / "model.pt").is_file():
        weights = weights / "model.pt"
    if weights.is_file() and run_of_file(weights) is None:
        preset = preset or PRESET
    if not CameraPipeline.takes(describe_network(weights, preset)):
        raise InputError(
            f"--nemo_checkpoint {weights} is a network without camera rays: train one with "
            "experiment=camera_control_7b_dl3dv"
        )
    negative = default_negative_prompt() if arguments.negative_prompt is None else arguments.negative_prompt
    config = GenerationConfig(
        height=arguments.height,
        width=arguments.width,
        num_frames=arguments.num_video_frames,
        fps=arguments.fps,
        num_input_frames=arguments.num_input_frames,
        input_from="start",
        num_steps=arguments.num_steps,
        guidance=arguments.guidance,
        negative_prompt=negative.strip() or None,
        seed=arguments.seed,
        resample_trajectory=arguments.resample_trajectory,
    )
    if arguments.fov is not None:
        config = replace(config, fov=arguments.fov)
    job = GenerationJob(
        weights=weights,
        tokenizer=below(root, arguments.tokenizer_dir, "--tokenizer_dir", "tokenizer"),
        output=arguments.video_save_path,
        config=config,
        preset=preset,
        kind=arguments.weights,
        lora=find_adapters(arguments.lora_path),
        text_encoder=text_encoder_in(root, arguments.text_encoder_dir, "--t5_cache_dir"),
        upsampler=upsampler_in(root, arguments.prompt_upsampler_dir) if arguments.enable_prompt_upsampler else None,
        guardrail=False if arguments.disable_guardrail else None,
        overwrite=arguments.overwrite,
        num_gpus=arguments.num_devices,
    )
    with log_shown():
        return run_job(job, requests)


def _requests(arguments: argparse.Namespace) -> list[GenerationRequest]:
    named = [name for name in ("camera_extrinsics_path", "trajectory") if getattr(arguments, name) is not None]
    if len(named) > 1:
        raise InputError("--camera_extrinsics_path and --trajectory: give one of them")
    trajectory = getattr(arguments, named[0]) if named else None
    if arguments.batch_input_path is not None:
        requests = collect_requests(batch=arguments.batch_input_path)
    else:
        if arguments.conditioned_image_or_video_path is None:
            raise InputError("--conditioned_image_or_video_path or --batch_input_path is required")
        prompt = arguments.prompt
        requests = [
            GenerationRequest(
                arguments.video_save_name,
                (prompt or "").strip(),
                arguments.conditioned_image_or_video_path,
                has_prompt=prompt is not None,
            )
        ]
    requests = [replace(request, trajectory=request.trajectory or trajectory) for request in requests]
    for request in requests:
        if request.trajectory is None:
            raise InputError(f"request {request.name!r} has no trajectory: --camera_extrinsics_path or --trajectory")
        if request.visual_input is None:
            raise InputError(f"{arguments.batch_input_path}: request {request.name!r} has no visual_input")
        if not request.prompt and not request.has_prompt and not arguments.enable_prompt_upsampler:
            raise InputError(f"request {request.name!r} has no prompt: required without --enable_prompt_upsampler")
    return requests


def _whole(text: str) -> int:
    """Steps as the original takes them, ``35`` or ``35.0``."""
    number = float(text)
    if not number.is_integer():
        raise ValueError(f"{text} is no whole number")
    return int(number)
