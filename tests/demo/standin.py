"""Untrained weights in the layout of nemo-cosmos-tiny, and clips whose frames tell their number."""

from __future__ import annotations

import json
from pathlib import Path

import torch

from nemo_cosmos.data.video import write_mp4
from nemo_cosmos.demo.checks import TRAINING_LIST
from nemo_cosmos.demo.weights import NETWORK, PRESET, TEXT_ENCODER, TOKENIZER
from nemo_cosmos.models.dit import DiTConfig, build_dit
from nemo_cosmos.models.text import save_tiny_text_encoder
from nemo_cosmos.models.tokenizer import build_tokenizer, save_tokenizer

LEVELS = 5
"""Difference of brightness between a frame and the next."""


def write_weights(folder: Path) -> Path:
    """Network, tokenizer, text encoder and a training list."""
    (folder / NETWORK).parent.mkdir(parents=True)
    torch.save(build_dit(DiTConfig.preset(PRESET, num_layers=6)).to_original(), folder / NETWORK)
    save_tokenizer(folder / TOKENIZER, build_tokenizer("CV4x8x8-360p", channels=8), name="stand-in")
    save_tiny_text_encoder(folder / TEXT_ENCODER, 64)
    write_training_list(folder, "0" * 64)
    return folder


def write_training_list(folder: Path, trained_on: str) -> None:
    """A training list of one file with the SHA-256 ``trained_on``."""
    listed = {"clips": [{"name": "landscape/train_00000", "sha256": trained_on}]}
    (folder / TRAINING_LIST).write_text(json.dumps(listed), encoding="utf-8")


def write_clip(
    folder: Path, name: str, frames: int, size: tuple[int, int] = (48, 64), fps: float = 8.0, caption: str | None = ""
) -> Path:
    """``videos/NAME.mp4``, whose frame k has the brightness ``LEVELS * k``, and ``metas/NAME.txt``."""
    levels = torch.arange(frames).mul(LEVELS).clamp(max=255).to(torch.uint8)
    video = levels.view(1, -1, 1, 1).expand(3, frames, *size).contiguous()
    write_mp4(folder / "videos" / f"{name}.mp4", video, fps, quality=4)
    (folder / "metas").mkdir(exist_ok=True)
    if caption is not None:
        (folder / "metas" / f"{name}.txt").write_text(caption or f"clip {name} gets brighter", encoding="utf-8")
    return folder / "videos" / f"{name}.mp4"
