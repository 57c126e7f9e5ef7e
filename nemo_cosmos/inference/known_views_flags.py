"""The flags of Cosmos-Predict1's multiview scripts: six cameras around a car."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from nemo_cosmos.data.rig import Rig, read_rig
from nemo_cosmos.ending import Flags, report_to
from nemo_cosmos.errors import InputError
from nemo_cosmos.inference.config import GenerationConfig
from nemo_cosmos.inference.job import JobSummary, run_job
from nemo_cosmos.inference.known_flags import Kind, add_common, add_models, job_of, rate_of, trained_for
from nemo_cosmos.inference.requests import GenerationRequest, requests_from_jsonl
from nemo_cosmos.logs import log_shown

CAPTIONS = {
    camera: f"The video is filmed by a camera that is mounted on a car. The camera faces {direction}."
    for camera, direction in {
        "left": "to the left of the car",
        "right": "to the right of the car",
        "back": "backwards",
        "back_left": "backwards and to the left",
        "back_right": "backwards and to the right",
    }.items()
}
"""Captions of the cameras that nothing is said about, by folder in the rig; the front camera has none."""
REPEATED = ("back_left", "back_right")
"""The cameras that ``--frame_repeat_negative_condition`` is about: the last two."""


def build_parser(kind: Kind, description: str) -> argparse.ArgumentParser:
    """The parser of one script; ``description`` is shown as it is, with its example."""
    parser = Flags(description=description, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False)
    add = parser.add_argument
    add_models(parser, f"Cosmos-Predict1-7B-{kind}-Sample-AV-Multiview")
    add("--prompt", help="what the front camera shows, or captions of all cameras as a file or folder")
    for camera, caption in CAPTIONS.items():
        add(f"--prompt_{camera}", default=caption, help="the same of another camera (%(default)s)")
    if kind == "Video2World":
        add("--input_image_or_video_path", type=Path,
            help="one video of all views (--input_stacking), or a folder with CAMERA.mp4")  # fmt: skip
        add("--input_stacking", choices=("time", "vertical"), default="time",
            help="one input holds the views one after another, or one below the other (%(default)s)")  # fmt: skip
        add("--num_input_frames", type=int, default=1, help="last frames taken of each view, 1 + 8k (%(default)s)")
    add("--batch_input_path", type=Path, help="JSONL file, one multiview video a line: prompt, visual_input")
    add("--frame_repeat_negative_condition", type=float, default=10.0,
        help="repetition count that the network is told of the rear side cameras; -1: none (%(default)s)")  # fmt: skip
    add("--negative_prompt", help="text of the unconditional branch (none: zero embedding)")
    add("--disable_prompt_upsampler", action="store_true", help="no model expands the captions of several cameras: as "
        "without it")  # fmt: skip
    add_common(parser, frames=57, size=(480, 848))
    return parser


def run_script(kind: Kind, arguments: argparse.Namespace) -> JobSummary:
    """Runs one script's job.

    Raises:
        InputError: flags that contradict each other, or a folder that is not there.
    """
    report_to(arguments.video_save_folder)
    requests = _requests(kind, arguments)
    job = job_of(arguments)
    config = GenerationConfig(
        rig=_rig(arguments.frame_repeat_negative_condition),
        **trained_for(arguments, job),
        fps=rate_of(arguments, job),
        num_input_frames=getattr(arguments, "num_input_frames", 1),
        input_stacking=getattr(arguments, "input_stacking", "time"),
        num_steps=arguments.num_steps,
        negative_prompt=(arguments.negative_prompt or "").strip() or None,
        seed=arguments.seed,
    )
    with log_shown():
        return run_job(replace(job, config=config), requests)


def _rig(repeat: float) -> Rig:
    """The six cameras, two of them with a repetition count."""
    if repeat != -1 and not 0 <= repeat <= 1e6:
        raise InputError(f"--frame_repeat_negative_condition {repeat}: expected -1 for none, or 0 to 1000000")
    rig, count = read_rig("av6"), max(repeat, 0.0)
    cameras = (replace(c, frame_repeat=count if c.folder in REPEATED else 0.0) for c in rig.cameras)
    return replace(rig, cameras=tuple(cameras))


def _requests(kind: Kind, arguments: argparse.Namespace) -> list[GenerationRequest]:
    others = {camera: getattr(arguments, f"prompt_{camera}") for camera in CAPTIONS}
    given, batch = getattr(arguments, "input_image_or_video_path", None), arguments.batch_input_path
    if batch is None and not arguments.prompt:
        raise InputError("--prompt or --batch_input_path is required")
    if batch is None and kind == "Video2World" and given is None:
        raise InputError("--input_image_or_video_path or --batch_input_path is required")
    if batch is not None and (arguments.prompt or given):
        raise InputError("--batch_input_path says what to generate; leave --prompt and the input out")
    asked = (
        requests_from_jsonl(batch)
        if batch is not None
        else [GenerationRequest(arguments.video_save_name, arguments.prompt.strip(), given, has_prompt=True)]
    )
    return [replace(request, other_prompts=others) for request in asked]
