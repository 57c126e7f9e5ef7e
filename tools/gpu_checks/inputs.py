"""What the steps build upon, made on the spot: clips, tokenizer, text encoder, shards, a released-layout file."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import wraps
from pathlib import Path
from threading import RLock
from typing import Concatenate, ParamSpec

import torch
from torch import Tensor

from gpu_checks.commands import Context
from gpu_checks.machine import NAN
from nemo_cosmos.checkpoint.files import MODEL_CONFIG, save_tensors
from nemo_cosmos.data.sample import LatentSample
from nemo_cosmos.data.shards import ShardWriter
from nemo_cosmos.models.dit import DiTConfig
from nemo_cosmos.models.dit.state_dict import original_shapes
from nemo_cosmos.tokenizer_identity import TokenizerIdentity

SHARED = Path("/dev/shm/gpu_check_base")

P = ParamSpec("P")
_making = RLock()


def one_at_a_time(function: Callable[Concatenate[Context, P], Path]) -> Callable[Concatenate[Context, P], Path]:
    """Steps that run beside each other find what another one is making when it is made."""

    @wraps(function)
    def locked(context: Context, *args: P.args, **kwargs: P.kwargs) -> Path:
        with _making:
            return function(context, *args, **kwargs)

    return locked


@one_at_a_time
def clips(context: Context) -> Path:
    folder = context.work / "clips"
    if not folder.exists():
        options = ["--clips", "4", "--held-out", "1", "--size", context.size, "--frames", str(context.frames)]
        context.run("sample_data", ["sample-data", str(folder), *options])
        for video in sorted((folder / "train" / "videos").glob("*.mp4")):
            for number in range(0 if context.machine.rehearse else 23):
                shutil.copy(video, video.with_stem(f"{video.stem}-{number}"))
                caption = folder / "train" / "metas" / f"{video.stem}.txt"
                shutil.copy(caption, caption.with_stem(f"{video.stem}-{number}"))
    return folder / "train"


@one_at_a_time
def tokenizer(context: Context) -> Path:
    from nemo_cosmos.models.tokenizer import build_tokenizer
    from nemo_cosmos.models.tokenizer.pretrained import save_tokenizer

    folder = context.work / "tokenizer"
    if not folder.exists():
        torch.manual_seed(0)
        name, width = ("CV4x8x8-360p", {"channels": 8}) if context.machine.rehearse else ("CV8x8x8-720p", {})
        module = build_tokenizer(name, **width)
        statistics = torch.zeros(module.config.latent_channels, 64), torch.ones(module.config.latent_channels, 64)
        save_tokenizer(folder, module, name="check", mean=statistics[0], std=statistics[1])
    return folder


@one_at_a_time
def text_encoder(context: Context) -> Path:
    from nemo_cosmos.models.text import save_tiny_text_encoder

    folder = context.work / "text_encoder"
    if not folder.exists():
        save_tiny_text_encoder(folder, width=network(context).text_width)
    return folder


@one_at_a_time
def shards(context: Context) -> Path:
    """Those that the step ``prepare`` has made, or random latents of the same shape."""
    from nemo_cosmos.models.video_tokenizer import open_tokenizer

    prepared, folder = context.work / "shards", context.work / "random_shards"
    if (prepared / "manifest.json").exists():
        return prepared
    identity = open_tokenizer(tokenizer(context)).identity
    latent_frames = 1 + (context.frames - 1) // identity.temporal_compression
    return random_shards(context, folder, identity, latent_frames, network(context).text_width)


@one_at_a_time
def random_shards(
    context: Context,
    folder: Path,
    identity: TokenizerIdentity,
    latent_frames: int,
    text_width: int,
    *,
    size: tuple[int, int] | None = None,
    rig: Sequence[int] = (),
    fps: float = 24.0,
    rays: bool = False,
) -> Path:
    """Four samples of standard normal latents of the checked size, with 20 tokens of text and, if asked, rays each.

    With the view ids of a rig the first view alone has text, and ``latent_frames`` are those of each view.
    """
    if not (folder / "manifest.json").exists():
        height, width = size or tuple(int(n) for n in context.size.split("x"))
        frames = 1 + (latent_frames - 1) * identity.temporal_compression
        shape = (16, latent_frames * len(rig or [0]), height // 8, width // 8)
        generator = torch.Generator().manual_seed(0)
        with ShardWriter(folder, tokenizer=identity, text_encoder="random", samples_per_shard=4) as writer:
            for number in range(4):
                text = torch.randn(20, text_width, generator=generator)
                latent, sizes = torch.randn(shape, generator=generator), (height, width, height, width)
                plucker = torch.randn(6, *shape[1:], generator=generator) if rays else None
                sample = LatentSample(f"clip-{number}", latent, text, "a clip", fps, frames, sizes)
                if rig:
                    sample.view_ids = torch.tensor(rig)
                    sample.text = torch.cat([text[None], text.new_zeros(len(rig) - 1, *text.shape)])
                writer.write(replace(sample, plucker=plucker))
    return folder


def network(context: Context, layers: int | None = None) -> DiTConfig:
    """The network with as many layers as are trained here, or with some other number."""
    if context.machine.rehearse:
        return DiTConfig.preset("tiny-video2world", num_layers=2, text_width=32, max_frames=16)
    return DiTConfig.preset("predict1-7b-video2world", num_layers=layers or context.machine.plan.layers)


class RandomWeights(Mapping[str, Tensor]):
    """A released file's tensors in bf16, drawn one at a time on the GPU."""

    def __init__(self, config: DiTConfig) -> None:
        shapes = {f"net.{name}": shape for name, shape in original_shapes(config).items()}
        head = {"logvar.0.freqs": (128,), "logvar.0.phases": (128,), "logvar.1.weight": (1, 128)}
        self.shapes = {**shapes, **(head if config.objective == "edm" else {})}
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        self.generator = torch.Generator(self.device).manual_seed(0)

    def __iter__(self) -> Iterator[str]:
        return iter(self.shapes)

    def __len__(self) -> int:
        return len(self.shapes)

    def shape_of(self, name: str) -> tuple[int, ...]:
        return self.shapes[name]

    def dtype_of(self, name: str) -> torch.dtype:
        return torch.bfloat16

    def __getitem__(self, name: str) -> Tensor:
        shape = self.shapes[name]
        if len(shape) == 1 and name.startswith("net."):
            return torch.ones(shape, dtype=torch.bfloat16)
        values = torch.randn(shape, generator=self.generator, device=self.device, dtype=torch.float32)
        return (values * shape[-1] ** -0.5).bfloat16().cpu()


def base(context: Context, layers: int | None = None) -> Path:
    """Random weights of the network, see :func:`released_file`."""
    config = network(context, layers)
    return released_file(context, config, f"{config.num_layers} layers", f"base_{config.num_layers}")


@one_at_a_time
def released_file(context: Context, config: DiTConfig, title: str, name: str) -> Path:
    """A file in the released layout; beside the saves where they fit together on the disk, else in shared memory."""
    folder = context.work / name
    if not context.machine.rehearse and shutil.disk_usage(context.work).total < 24 * count(config):
        folder = SHARED / folder.name
    file = folder / "model.pt"
    if not file.exists():
        folder.mkdir(parents=True, exist_ok=True)
        start = time.perf_counter()
        save_tensors(file, RandomWeights(config))
        (folder / MODEL_CONFIG).write_text(json.dumps(config.to_dict()))
        seconds, size = time.perf_counter() - start, file.stat().st_size
        context.row(f"released-layout file, {title}", seconds, NAN, f"{size / 1e9:.1f} GB", True)
    return file


def count(config: DiTConfig) -> int:
    """Weights of a network."""
    return sum(torch.Size(shape).numel() for shape in original_shapes(config).values())
