"""The Cosmos-Predict2 commands of ``examples/``: ``text2image.py``, ``video2world_predict2.py``, ``multiview.py``."""

from __future__ import annotations

import argparse
import logging
from pathlib import Path
from typing import Any

import torch

from nemo_cosmos.checkpoint.sources import open_weights
from nemo_cosmos.choices import Part
from nemo_cosmos.data.images import is_image
from nemo_cosmos.data.rig import read_rig
from nemo_cosmos.ending import report_to
from nemo_cosmos.errors import InputError
from nemo_cosmos.inference.batch_json import Asked, request_for, requests_from_json
from nemo_cosmos.inference.config import GenerationConfig, run_folder_of, weight_defaults
from nemo_cosmos.inference.job import GenerationJob, JobSummary, run_job
from nemo_cosmos.inference.known_flags import below
from nemo_cosmos.inference.loading import describe_network
from nemo_cosmos.inference.pipelines import pipeline_for
from nemo_cosmos.inference.pipelines.text2image import ASPECT_RATIOS
from nemo_cosmos.inference.places import find_adapters, find_tokenizer
from nemo_cosmos.inference.predict2_network import (
    SIZES,
    TINY_SIZE_NAME,
    Kind,
    Network,
    default_size,
    identify,
    released_file,
)
from nemo_cosmos.inference.predict2_parser import RATIO, REFINER, SCRIPTS, VIDEO_FRAMES, VIDEO_SIZES, build_parser
from nemo_cosmos.inference.prompts import released_negative_prompt
from nemo_cosmos.logs import log_shown
from nemo_cosmos.models.text import DEFAULT_TEXT_ENCODER
from nemo_cosmos.tiny import PARTS, located, packaged

logger = logging.getLogger(__name__)

__all__ = ["build_parser", "run_script"]

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


def run_script(kind: Kind, arguments: argparse.Namespace) -> list[JobSummary]:
    """Runs one script's requests, those for one folder as one job.

    Raises:
        InputError: flags that contradict each other or that nothing answers to, or a model that is not there or not
            the one that is meant.
    """
    report_to(arguments.save_path.parent)
    arguments.checkpoint_dir = packaged(arguments.checkpoint_dir) or arguments.checkpoint_dir
    _refuse(kind, arguments)
    with log_shown():
        asked = _asked(kind, arguments)
        rig = read_rig(arguments.rig) if getattr(arguments, "rig", None) is not None else None
        network = _network(kind, arguments)
        settings = {**_settings(kind, arguments, network), **({} if rig is None else {"rig": rig})}
        jobs: dict[tuple[Path, str], list[Asked]] = {}
        for one in asked:
            jobs.setdefault((one[1].parent, one[1].suffix), []).append(one)
        job = _job(kind, arguments, network)
        dit = describe_network(network.path, network.preset)
        out = []
        for (folder, suffix), group in jobs.items():
            image = {"image_format": suffix[1:]} if kind == "text2image" else {}
            config = pipeline_for(dit).configure({**settings, **image}, dit=dit)
            out.append(run_job(GenerationJob(output=folder, config=config, **job), [request for request, _ in group]))
        return out


def _refuse(kind: Kind, arguments: argparse.Namespace) -> None:
    for flag, why in _REFUSED.items():
        if getattr(arguments, flag, False):
            raise InputError(f"--{flag}: {why}")
    if getattr(arguments, "distill_steps", 0):
        raise InputError(f"--distill_steps {arguments.distill_steps}: only the 0.6B network is distilled; {_SMALLEST}")
    if arguments.model_size is not None and arguments.model_size not in SIZES:
        why = f": {_SMALLEST}" if arguments.model_size == "0.6B" else ""
        raise InputError(f"--model_size {arguments.model_size}{why}; expected {' or '.join(SIZES)}")
    frames, given = getattr(arguments, "num_conditional_frames", None), SCRIPTS[kind].given
    if frames is not None and frames not in given:
        expected = " or ".join(map(str, given))
        raise InputError(f"--num_conditional_frames {frames}: expected {expected}")
    if (arguments.height is None) != (arguments.width is None):
        raise InputError("--height and --width belong together: give both or none")
    named = [flag for flag in ("aspect_ratio", "resolution") if getattr(arguments, flag, None) is not None]
    if arguments.height is not None and named:
        raise InputError(f"--{named[0]} and --height with --width both name the size; leave one of them out")


def _asked(kind: Kind, arguments: argparse.Namespace) -> list[Asked]:
    script, frames = SCRIPTS[kind], _given_frames(kind, arguments)
    if arguments.batch_input_json is not None:
        given = [flag for flag in ("prompt", "input_path") if getattr(arguments, flag, None) is not None]
        if given:
            raise InputError(f"--{given[0]} and --batch_input_json both say what to generate; leave one of them out")
        asked = requests_from_json(
            arguments.batch_input_json,
            output_key=script.output_key,
            input_key=script.input_key,
            suffix=".mp4" if _is_video(kind) else ".jpg",
            by_camera=kind == "multiview",
            input_needed=bool(frames),
        )
    else:
        if not (arguments.prompt or "").strip():
            raise InputError("--prompt or --batch_input_json is required")
        given_path = arguments.input_path if frames else None
        if frames and given_path is None:
            raise InputError("--input_path or --batch_input_json is required: the image or video to start from")
        if not frames and getattr(arguments, "input_path", None) is not None:
            logger.info("%s is not read: --num_conditional_frames 0", arguments.input_path)
        asked = [(request_for(arguments.save_path, arguments.prompt, given_path, where="--save_path"),
                  arguments.save_path)]  # fmt: skip
    for request, file in asked:
        given_path = request.visual_input
        if frames > 1 and given_path is not None and given_path.is_file() and is_image(given_path):
            raise InputError(
                f"{given_path} is an image: it gives 1 frame, not --num_conditional_frames "
                f"{arguments.num_conditional_frames}"
            )
        if file.suffix.lower() not in script.suffixes:
            expected = " or ".join(script.suffixes)
            raise InputError(f"{file}: expected the name of a file to write that ends in {expected}")
    return asked


def _given_frames(kind: Kind, arguments: argparse.Namespace) -> int:
    """Pixel frames that are taken of an input, 0 where there is none."""
    return SCRIPTS[kind].given.get(getattr(arguments, "num_conditional_frames", 0), 0)


def _network(kind: Kind, arguments: argparse.Namespace) -> Network:
    size, path = arguments.model_size, arguments.dit_path
    path = None if path is None else located(path, "network")
    weights = "ema" if arguments.load_ema else "reg"
    if path is None:
        which = {}
        if kind == "video2world":
            which = {"resolution": arguments.resolution or "720", "fps": arguments.fps or "16"}
        root = arguments.checkpoint_dir
        path = released_file(root, kind, size or default_size(root, kind), **which)
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
    return kind != "text2image"


def _settings(kind: Kind, arguments: argparse.Namespace, network: Network) -> dict[str, Any]:
    """Of ``GenerationConfig`` by name; sizes and lengths that are not named are those of a run, else the released."""
    settings: dict[str, Any] = {"num_steps": arguments.num_steps, "seed": arguments.seed}
    settings |= {"height": arguments.height, "width": arguments.width}
    sizes: dict[str, tuple[int, int]] = ASPECT_RATIOS
    if _is_video(kind):
        negative = arguments.negative_prompt
        settings |= {
            "guidance": arguments.guidance,
            "num_input_frames": _given_frames(kind, arguments) or None,
            "negative_prompt": released_negative_prompt() if negative is None else negative.strip() or None,
            "num_frames": arguments.num_frames,
            "fps": None if arguments.fps is None else float(arguments.fps),
        }
        sizes = VIDEO_SIZES[arguments.resolution or "720"]
    else:
        settings["negative_prompt"] = (arguments.negative_prompt or "").strip() or None
    named, known = arguments.aspect_ratio or getattr(arguments, "resolution", None), _known(network)
    if settings["height"] is None and (named or not known):
        settings["height"], settings["width"] = sizes[arguments.aspect_ratio or RATIO]
    if kind == "video2world" and settings["num_frames"] is None:
        settings["num_frames"] = VIDEO_FRAMES.get(arguments.fps)
        if settings["num_frames"] is None and not known:
            settings |= {"num_frames": VIDEO_FRAMES["16"], "fps": settings["fps"] or 16.0}
    if kind == "multiview":
        settings |= _view_settings(arguments, of_run=run_folder_of(network.path) is not None)
    return settings


def _view_settings(arguments: argparse.Namespace, *, of_run: bool) -> dict[str, Any]:
    if arguments.num_conditional_frames == 2:
        logger.info("--num_conditional_frames 2: two latent frames, which are the last 5 frames of each view")
    one = None if of_run or arguments.rig is not None else 1
    return {
        "num_views": one if arguments.n_views is None else arguments.n_views,
        "fps": arguments.fps or (None if of_run else 10.0),
        "rope_fps": arguments.rope_fps,
        "input_stacking": arguments.input_stacking,
        "output_stacking": arguments.output_stacking,
    }


def _known(network: Network) -> bool:
    """Whether size and length of what weights were trained on are known: those of a run, or of nemo-cosmos-tiny."""
    try:
        found = weight_defaults(
            network.path, GenerationConfig(), (0, 0), describe_network(network.path, network.preset)
        )
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
        "text_encoder": str(located(arguments.text_encoder or _local(root, DEFAULT_TEXT_ENCODER), "text_encoder")),
        "text_encoder_dtype": torch.bfloat16 if arguments.downcast_text_encoder else torch.float32,
        "lora": find_adapters(arguments.lora_path),
        "lora_alpha": arguments.lora_alpha,
        "upsampler": _refiner(root, arguments) if kind == "video2world" else None,
        "guardrail": False if arguments.disable_guardrail else None,
        "offload": offload,
        "overwrite": arguments.overwrite,
        "num_gpus": getattr(arguments, "num_gpus", None),
    }


def _tokenizer(kind: Kind, arguments: argparse.Namespace) -> Path:
    if arguments.tokenizer_dir is not None:
        return find_tokenizer(arguments.tokenizer_dir)
    size = arguments.model_size or default_size(arguments.checkpoint_dir, kind)
    if size == TINY_SIZE_NAME:
        return below(arguments.checkpoint_dir, PARTS["tokenizer"], "--tokenizer_dir")
    # The released multiview network comes without one, and takes that of Video2World.
    owner: Kind = "video2world" if kind == "multiview" else kind
    released = released_file(arguments.checkpoint_dir, owner, size).parent / "tokenizer" / "tokenizer.pth"
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
    if given is None and not (root / REFINER).is_dir():
        logger.info("prompts are used as they are: %s is not there", root / REFINER)
        return None
    return str(given or root / REFINER)
