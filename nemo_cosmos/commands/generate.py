"""The verb `generate`."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import typer

from nemo_cosmos.choices import Fit, InputFrom, Precision, Sampler, Stacking, Verify, Weights
from nemo_cosmos.ending import report_to


class Part(str, Enum):
    """Of :data:`nemo_cosmos.choices.Part`: typer takes no list of a Literal."""

    network = "network"
    tokenizer = "tokenizer"
    text_encoder = "text_encoder"
    upsampler = "upsampler"
    guardrail = "guardrail"


_INPUT, _MODELS, _VIDEO, _SAMPLING = "What to generate", "Models", "Video", "Sampling"
_VIEWS = "Several cameras"


def generate(
    model: Annotated[
        Path,
        typer.Option(
            "--model",
            # An older name. torchrun refuses it as an abbreviation of options of its own.
            "--run",
            help="Run folder of a training, .pt file in the released layout, diffusers folder, repository of the "
            "hub, or nemo-cosmos-tiny; --run without torchrun.",
            rich_help_panel=_MODELS,
        ),
    ],
    output: Annotated[
        Path,
        typer.Option(
            help="Folder of the videos or images; finished ones there are not made again. Of a single image also its "
            "file, .jpg or .png."
        ),
    ],
    prompt: Annotated[
        str | None,
        typer.Option(
            help="What the video or image shows; of several cameras also a file or folder of captions.",
            show_default="none",
            rich_help_panel=_INPUT,
        ),
    ] = None,
    visual_input: Annotated[
        Path | None,
        typer.Option(
            "--input",
            help="Image or video to start from; of several cameras also a folder of them.",
            show_default="none",
            rich_help_panel=_INPUT,
        ),
    ] = None,
    source: Annotated[
        Path | None,
        typer.Option(
            help="Dataset as `prepare` reads it: one video per clip or image, from its first frames and caption; "
            "Text2World and Text2Image networks take the caption alone.",
            show_default="none",
            rich_help_panel=_INPUT,
        ),
    ] = None,
    batch: Annotated[
        Path | None,
        typer.Option(
            help="JSONL file, one video or image a line: prompt, visual_input, optionally name, seed and trajectory.",
            show_default="none",
            rich_help_panel=_INPUT,
        ),
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option(
            min=1, help="Only the first N of --source or --batch.", show_default="all", rich_help_panel=_INPUT
        ),
    ] = None,
    name: Annotated[
        str | None,
        typer.Option(
            help="File name of a single video or image, without suffix.",
            show_default="output",
            rich_help_panel=_INPUT,
        ),
    ] = None,
    tokenizer: Annotated[
        Path | None,
        typer.Option(
            help="Tokenizer folder, tokenizer.pth, or repository.",
            show_default="required; of nemo-cosmos-tiny its own",
            rich_help_panel=_MODELS,
        ),
    ] = None,
    text_encoder: Annotated[
        str | None,
        typer.Option(
            help="Folder or repository of the T5 encoder.",
            show_default="google-t5/t5-11b; of nemo-cosmos-tiny its own",
            rich_help_panel=_MODELS,
        ),
    ] = None,
    lora: Annotated[
        list[str] | None,
        typer.Option(
            help="Adapters to merge into the network: a PEFT folder, .safetensors or .pt file, PATH:0.7 for a part of "
            "them; may be given several times.",
            metavar="PATH[:WEIGHT]",
            show_default="none",
            rich_help_panel=_MODELS,
        ),
    ] = None,
    lora_alpha: Annotated[
        float | None,
        typer.Option(
            help="Alpha of adapters whose file does not say it.", show_default="their rank", rich_help_panel=_MODELS
        ),
    ] = None,
    weights: Annotated[
        Weights,
        typer.Option(help="Averaged or regular weights of a run, or of a file with both.", rich_help_panel=_MODELS),
    ] = "ema",
    preset: Annotated[
        str | None,
        typer.Option(
            help="Network of a .pt file, e.g. predict1-7b-video2world.",
            show_default="the run's",
            rich_help_panel=_MODELS,
        ),
    ] = None,
    precision: Annotated[
        Precision | None,
        typer.Option(
            help="Of network and tokenizer.", show_default="bf16 on a GPU, fp32 on the CPU", rich_help_panel=_MODELS
        ),
    ] = None,
    verify: Annotated[
        Verify,
        typer.Option(
            help="Compare network and tokenizer with the checksums beside them: all of it, sizes alone, or all up to "
            "64 GiB.",
            rich_help_panel=_MODELS,
        ),
    ] = "auto",
    text_encoder_precision: Annotated[
        Precision, typer.Option(help="Of the text encoder.", rich_help_panel=_MODELS)
    ] = "fp32",
    prompt_upsampler: Annotated[
        str | None,
        typer.Option(
            help="Image-text-to-text model of transformers that expands the prompts.",
            show_default="none",
            rich_help_panel=_MODELS,
        ),
    ] = None,
    guardrail: Annotated[
        bool | None,
        typer.Option(
            help="Check prompts and videos with cosmos_guardrail.",
            show_default="on where it is installed",
            rich_help_panel=_MODELS,
        ),
    ] = None,
    offload: Annotated[
        list[Part] | None,
        typer.Option(
            help="Part that leaves the device while it is not in use; may be given several times.",
            show_default="none",
            rich_help_panel=_MODELS,
        ),
    ] = None,
    height: Annotated[
        int | None,
        typer.Option(help="Pixels.", show_default="the run's, else 704, of an image 768", rich_help_panel=_VIDEO),
    ] = None,
    width: Annotated[
        int | None,
        typer.Option(help="Pixels.", show_default="the run's, else 1280, of an image 1360", rich_help_panel=_VIDEO),
    ] = None,
    aspect_ratio: Annotated[
        str | None,
        typer.Option(
            help="Size of an image instead of --height and --width: 16:9, 9:16, 4:3, 3:4 or 1:1.",
            show_default="none",
            rich_help_panel=_VIDEO,
        ),
    ] = None,
    num_frames: Annotated[
        int | None,
        typer.Option(help="Frames of the video.", show_default="one chunk", rich_help_panel=_VIDEO),
    ] = None,
    chunk_frames: Annotated[
        int | None,
        typer.Option(
            help="Frames generated in one go; longer videos are continued chunk by chunk.",
            show_default="the run's, else the tokenizer's",
            rich_help_panel=_VIDEO,
        ),
    ] = None,
    overlap_frames: Annotated[
        int, typer.Option(help="Frames of a chunk that the next one continues from.", rich_help_panel=_VIDEO)
    ] = 9,
    num_input_frames: Annotated[
        int,
        typer.Option(
            help="Frames taken from an input video: 1 + k times the temporal compression.", rich_help_panel=_VIDEO
        ),
    ] = 1,
    input_from: Annotated[
        InputFrom | None,
        typer.Option(
            help="Take the first or the last frames of an input video.",
            show_default="start with --source, else end",
            rich_help_panel=_VIDEO,
        ),
    ] = None,
    fit: Annotated[
        Fit | None,
        typer.Option(
            help="How an input of another shape fills the frame.",
            show_default="as in training, else crop",
            rich_help_panel=_VIDEO,
        ),
    ] = None,
    trajectory: Annotated[
        str | None,
        typer.Option(
            help="Of the camera, for networks with camera control: a transforms.json, a CSV file, a folder of COLMAP, "
            "or a move and its amount such as orbit_left:0.3; the first pose belongs to the first frame.",
            show_default="none",
            rich_help_panel=_VIDEO,
        ),
    ] = None,
    fov: Annotated[
        float | None,
        typer.Option(
            help="Degrees from left to right that the camera shows, where the trajectory does not tell.",
            show_default="90",
            rich_help_panel=_VIDEO,
        ),
    ] = None,
    resample_trajectory: Annotated[
        bool,
        typer.Option(
            "--resample-trajectory",
            help="Spread all poses of a file over the frames of the video.",
            rich_help_panel=_VIDEO,
        ),
    ] = False,
    fps: Annotated[
        float | None,
        typer.Option(
            help="Frames per second.",
            show_default="the input video's, else the training data's, else 24",
            rich_help_panel=_VIDEO,
        ),
    ] = None,
    crf: Annotated[
        int, typer.Option(min=0, max=51, help="H.264 quality: 0 lossless, 51 worst.", rich_help_panel=_VIDEO)
    ] = 18,
    image_format: Annotated[
        str | None,
        typer.Option(help="Of an image: jpg or png.", show_default="--output's, else jpg", rich_help_panel=_VIDEO),
    ] = None,
    image_quality: Annotated[
        int | None,
        typer.Option(help="Of a JPEG image: 1 to 100.", show_default="85", rich_help_panel=_VIDEO),
    ] = None,
    num_steps: Annotated[int, typer.Option(min=2, help="Sampler steps.", rich_help_panel=_SAMPLING)] = 35,
    guidance: Annotated[
        float | None,
        typer.Option(
            help="g in cond + g * (cond - uncond).",
            show_default="7, of an image 4, of nemo-cosmos-tiny 1",
            rich_help_panel=_SAMPLING,
        ),
    ] = None,
    batched_guidance: Annotated[
        bool, typer.Option("--batched-guidance", help="Both branches in one batch.", rich_help_panel=_SAMPLING)
    ] = False,
    negative_prompt: Annotated[
        str | None,
        typer.Option(
            help="Text of the unconditional branch.", show_default="none: zero embedding", rich_help_panel=_SAMPLING
        ),
    ] = None,
    sampler: Annotated[
        Sampler | None,
        typer.Option(
            show_default="edm-euler for Predict1, res-2ab for Predict2", help="Sampler.", rich_help_panel=_SAMPLING
        ),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the noise.", rich_help_panel=_SAMPLING)] = 1,
    rig: Annotated[
        str | None,
        typer.Option(
            help="YAML file of the cameras, or waymo, av7, av6.", show_default="the run's", rich_help_panel=_VIEWS
        ),
    ] = None,
    num_views: Annotated[
        int | None,
        typer.Option(
            "--n-views",
            min=1,
            help="Cameras with the ids from 0 on, where no rig names them.",
            show_default="the run's, else the network's",
            rich_help_panel=_VIEWS,
        ),
    ] = None,
    rope_fps: Annotated[
        float | None,
        typer.Option(
            help="Frames per second that the network alone is told.", show_default="--fps", rich_help_panel=_VIEWS
        ),
    ] = None,
    input_stacking: Annotated[
        Stacking,
        typer.Option(
            help="One input video holds the views one after another, or one below the other.", rich_help_panel=_VIEWS
        ),
    ] = "time",
    output_stacking: Annotated[
        Stacking | None,
        typer.Option(
            help="The same of the video that is written.",
            show_default="vertical, of Predict1 time",
            rich_help_panel=_VIEWS,
        ),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Make finished videos and images again.")] = False,
) -> None:
    """Generate videos from prompts and, with a Video2World network, from an image or the frames of a video; or images,
    with a Text2Image network.

    Writes NAME.mp4 (H.264) or an image, NAME.txt (the final prompt) and NAME.json (the settings); of several cameras
    also NAME_grid.mp4 and NAME/CAMERA.mp4. Under torchrun all GPUs
    share each video by context parallelism, with the same result as one.

    [bold]Example:[/bold] nemo-cosmos generate --model checkpoints/posttraining/diffusion_video2world/video2world_7b_example_hdvila --tokenizer checkpoints/Cosmos-Tokenize1-CV8x8x8-720p --input first_frame.jpg --prompt "A robot arm lifts a cup" --output outputs/videos
    """  # noqa: E501
    from nemo_cosmos.data.rig import read_rig
    from nemo_cosmos.inference.config import GenerationConfig
    from nemo_cosmos.inference.job import GenerationJob, run_job
    from nemo_cosmos.inference.loading import describe_network
    from nemo_cosmos.inference.places import find_adapters, find_network, text_encoder_for, tokenizer_for
    from nemo_cosmos.inference.requests import collect_requests
    from nemo_cosmos.inference.settle import settle
    from nemo_cosmos.logs import log_shown

    report_to(output)
    requests = collect_requests(
        prompt=prompt,
        visual_input=visual_input,
        source=source,
        batch=batch,
        limit=limit,
        name=name or "output",
        rig=rig,
    )
    settings: dict[str, Any] = {
        "height": height,
        "width": width,
        "num_frames": num_frames,
        "chunk_frames": chunk_frames,
        "overlap_frames": overlap_frames,
        "fps": fps,
        "num_input_frames": num_input_frames,
        "input_from": input_from,
        "fit": fit,
        "sampler": sampler,
        "num_steps": num_steps,
        "guidance": guidance,
        "batched_guidance": batched_guidance,
        "negative_prompt": negative_prompt,
        "seed": seed,
        "crf": crf,
        "image_format": image_format,
        "image_quality": image_quality,
        "rig": None if rig is None else read_rig(rig),
        "num_views": num_views,
        "rope_fps": rope_fps,
        "input_stacking": input_stacking,
        "output_stacking": output_stacking,
        "trajectory": trajectory,
        "fov": fov,
        "resample_trajectory": resample_trajectory or None,
    }
    # Before a model is downloaded.
    GenerationConfig(**{key: value for key, value in settings.items() if value is not None})
    tokenizer, text_encoder = tokenizer_for(model, tokenizer), text_encoder_for(model, text_encoder)
    network, preset = find_network(model, preset)
    dit = describe_network(network, preset)
    with log_shown():
        asked = settle(dit, requests, settings, output, aspect_ratio=aspect_ratio, source=source, name=name)
    report_to(asked.output)
    job = GenerationJob.from_names(
        weights=network,
        tokenizer=tokenizer,
        lora=find_adapters(lora),
        lora_alpha=lora_alpha,
        output=asked.output,
        config=asked.config,
        preset=preset,
        kind=weights,
        text_encoder=text_encoder,
        upsampler=prompt_upsampler,
        guardrail=guardrail,
        offload=frozenset(part.value for part in offload or ()),
        precision=precision,
        text_encoder_precision=text_encoder_precision,
        overwrite=overwrite,
        verify=verify,
    )
    with log_shown():
        run_job(job, asked.requests)
