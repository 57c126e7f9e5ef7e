"""Scenes with camera poses into training data: what `tools/prepare_dataset.py` calls."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from nemo_cosmos.data.scene_windows import SCENE_FRAMES, SceneClip
from nemo_cosmos.data.windows import WindowPlan
from nemo_cosmos.ending import report_to
from nemo_cosmos.errors import InputError
from nemo_cosmos.models.text import load_text_encoder, save_tiny_text_encoder, text_encoder_name
from nemo_cosmos.models.tokenizer import CosmosTokenizer, build_tokenizer
from nemo_cosmos.models.tokenizer.pretrained import save_tokenizer
from nemo_cosmos.models.video_tokenizer import open_tokenizer
from nemo_cosmos.prepare.dataset import prepare_dataset, progress_bar, scenes_per_hour
from nemo_cosmos.prepare.decode import default_workers
from nemo_cosmos.prepare.device import resolve_device, resolve_dtype
from nemo_cosmos.prepare.eight_files import REPORT, FolderResult, prepare_eight_files
from nemo_cosmos.prepare.encode import barrier, join_ranks
from nemo_cosmos.prepare.sources import SceneOptions, SourceOptions, open_source
from nemo_cosmos.prepare.sources.scenes import scene_layout

SHOWN = 5
VIDEOS, TINY = "video_files", "tiny_models"
"""Folders of the cache."""
TINY_WIDTH = 64


@dataclass(frozen=True)
class CameraDatasetSettings:
    """What the tool is asked for; names and defaults are those of its flags."""

    dataset_path: str
    output_path: str = "camera_ctrl_dataset_cached"
    video_processing_cache_path: str = "video_processing_cache"
    path_to_caption_dict: str | None = None
    num_chunks: int = 1
    height: int = 704
    width: int = 1280
    num_zip_files: int = -1
    seed: int = 1234
    tokenizer_dir: str = ""
    text_encoder: str = "google-t5/t5-11b"
    tiny: bool = False
    format: str = "pth"
    layout: str = "auto"
    num_frames: int = SCENE_FRAMES
    fps: float = 7.0
    default_caption: str | None = None
    max_unpacked_gb: float | None = None
    clean_cache: bool = False
    workers: int | None = None
    device: str = "auto"
    dtype: str = "auto"


def prepare_camera_dataset(settings: CameraDatasetSettings) -> None:
    """Prepare scenes and print what became of them; under torchrun every process calls it.

    Raises:
        InputError: no scenes, a scene without a caption, a model that is not there, or an output that holds something
            else. What is wrong with single scenes is listed at the end instead.
    """
    if settings.layout == "auto":
        settings = replace(settings, layout=scene_layout(Path(settings.dataset_path)))
    out, cache = Path(settings.output_path), Path(settings.video_processing_cache_path)
    report_to(out)
    alone = not torch.distributed.is_initialized()
    rank = join_ranks()
    tokenizer, text_encoder = _models(settings, cache)
    caption = "" if settings.tiny and settings.path_to_caption_dict is None else None
    caption = caption if settings.default_caption is None else settings.default_caption
    if settings.format == "shards":
        _to_shards(settings, out, tokenizer, text_encoder, caption)
    else:
        clips = _clips(settings, out, cache, caption)
        result = _to_folder(settings, clips, out, tokenizer, text_encoder)
        if rank.index == 0:
            _report(result, out, len({clip.scene.name for clip in clips}), settings.num_chunks)
            if settings.clean_cache:
                clean_cache(cache, clips)
        barrier(rank)
    if alone and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def clean_cache(cache: Path, clips: Iterable[SceneClip]) -> None:
    """Delete the videos of scenes; folders of the cache go when nothing else is in them."""
    for video in {clip.video_file for clip in clips}:
        if video is not None:
            video.unlink(missing_ok=True)
    for folder in (cache / VIDEOS, cache):
        with contextlib.suppress(OSError):  # Something of another dataset is in it.
            folder.rmdir()


def save_tiny_models(folder: Path) -> tuple[Path, Path]:
    """A tokenizer of the compression of CV8x8x8 and a text encoder with random weights, made once; their folders."""
    tokenizer, text_encoder = folder / "tokenizer", folder / "text_encoder"
    if not (tokenizer / "config.json").is_file():
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            module = build_tokenizer("CV8x8x8-720p", channels=8, num_res_blocks=1, channels_mult=(1, 1, 1)).eval()
            noise = torch.nn.functional.interpolate(torch.rand(1, 3, 5, 8, 8) * 2 - 1, (17, 64, 64), mode="trilinear")
        folder.mkdir(parents=True, exist_ok=True)
        raw = CosmosTokenizer(module)
        latent = raw.encode(noise)[0].flatten(1)
        mean, std = (value[:, None].expand_as(raw.mean) for value in (latent.mean(1), latent.std(1).clamp(min=1e-3)))
        save_tokenizer(tokenizer, module, name="tiny-CV8x8x8", mean=mean, std=std)
    if not (text_encoder / "config.json").is_file():
        save_tiny_text_encoder(text_encoder, width=TINY_WIDTH)
    return tokenizer, text_encoder


def _models(settings: CameraDatasetSettings, cache: Path) -> tuple[Path, str]:
    """Folders of the tokenizer and the text encoder."""
    if settings.tiny:
        if settings.tokenizer_dir:
            raise InputError(
                f"--tiny makes a tokenizer of its own: leave out --tokenizer_dir {settings.tokenizer_dir}"
            )
        rank = join_ranks()
        if rank.index == 0:
            save_tiny_models(cache / TINY)
        barrier(rank)
        tokenizer, text = save_tiny_models(cache / TINY)
        return tokenizer, str(text)
    if not settings.tokenizer_dir:
        raise InputError(
            "--tokenizer_dir: expected the folder of a tokenizer with 8x8x8 compression, such as checkpoints/"
            "Cosmos-Tokenize1-CV8x8x8-720p from tools/download_tokenizer_checkpoints.py; or --tiny to try without"
        )
    return Path(settings.tokenizer_dir), settings.text_encoder


def _clips(settings: CameraDatasetSettings, out: Path, cache: Path, caption: str | None) -> list[SceneClip]:
    scenes = SceneOptions(
        captions=None if settings.path_to_caption_dict is None else Path(settings.path_to_caption_dict),
        chunks=settings.num_chunks,
        seed=settings.seed,
        count=settings.num_zip_files,
        max_unpacked_gb=settings.max_unpacked_gb,
        videos=cache / VIDEOS,
        apart=(out, cache),
    )
    opened = open_source(settings.dataset_path, settings.layout, SourceOptions(default_caption=caption, scenes=scenes))
    return [clip for clip in opened.clips if isinstance(clip, SceneClip)]


def _to_folder(
    settings: CameraDatasetSettings, clips: list[SceneClip], out: Path, tokenizer: Path, text_encoder: str
) -> FolderResult:
    place = resolve_device(settings.device)
    compute = resolve_dtype(settings.dtype, place)
    video_tokenizer = open_tokenizer(tokenizer, device=place, dtype=compute)
    rank = join_ranks()
    if rank.index == 0:
        print(f"tokenizer {video_tokenizer.identity}: {video_tokenizer.origin}", flush=True)
    options: dict[str, Any] = {"seed": settings.seed, "dtype": str(compute).removeprefix("torch.")}
    with progress_bar(rank.index == 0) as on_progress:
        return prepare_eight_files(
            clips,
            out,
            tokenizer=video_tokenizer,
            plan=WindowPlan(settings.num_frames, (settings.height, settings.width), "pad", fps=settings.fps),
            text_encoder=lambda: load_text_encoder(text_encoder, device=place),
            text_encoder_name=text_encoder_name(text_encoder),
            workers=default_workers() if settings.workers is None else settings.workers,
            device=place,
            options=options,
            on_progress=on_progress,
        )


def _to_shards(
    settings: CameraDatasetSettings, out: Path, tokenizer: Path, text_encoder: str, caption: str | None
) -> None:
    prepare_dataset(
        settings.dataset_path,
        out,
        tokenizer=tokenizer,
        text_encoder=text_encoder,
        frames=settings.num_frames,
        size=(settings.height, settings.width),
        fps=settings.fps,
        default_caption=caption,
        workers=settings.workers,
        device=settings.device,
        dtype=settings.dtype,
        source_kind=settings.layout,
        scene_captions=settings.path_to_caption_dict,
        chunks=settings.num_chunks,
        seed=settings.seed,
        num_scenes=settings.num_zip_files,
        max_unpacked_gb=settings.max_unpacked_gb,
    )


def _report(result: FolderResult, out: Path, scenes: int, chunks: int) -> None:
    for failure in result.skipped[:SHOWN]:
        print(f"skipped: {failure.reason}")
    if len(result.skipped) > SHOWN:
        print(f"skipped: {len(result.skipped) - SHOWN} more, all listed in {out / REPORT}")
    speed = f" in {result.seconds:.1f} s, {scenes_per_hour(result.written / chunks, result.seconds)}"
    print(
        f"prepared {result.written} samples{speed if result.written else ''}; {result.already_done} were there "
        f"already, {len(result.skipped)} of {scenes} scenes skipped"
    )
    print(f"{out}: {result.samples} samples of eight files each")
