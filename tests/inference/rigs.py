"""Tiny multiview networks and clips of several cameras, for what generates with them."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from torch import Tensor

from nemo_cosmos.checkpoint.files import MODEL_CONFIG
from nemo_cosmos.data.video import write_mp4
from nemo_cosmos.models.dit import DiTConfig, build_dit
from nemo_cosmos.models.text import save_tiny_text_encoder
from nemo_cosmos.models.tokenizer import build_tokenizer
from nemo_cosmos.models.tokenizer.pretrained import save_tokenizer
from tests.models.wan import save_tiny_wan_vae

SIZES = {"hidden_size": 64, "num_layers": 2, "num_attention_heads": 4, "adaln_lora_dim": 8, "text_width": 32}
HEIGHT, WIDTH, FRAMES = 32, 48, 5


def network(preset: str = "tiny-predict2-multiview", seed: int = 0, **sizes: int) -> dict[str, Tensor]:
    """Released names and random weights, the last layer's among them, which starts at zero."""
    net = build_dit(DiTConfig.preset(preset, **{**SIZES, **sizes}), seed=seed)
    generator = torch.Generator().manual_seed(seed)
    for parameter in net.final_layer.parameters():
        parameter.data.normal_(std=0.05, generator=generator)
    return net.to_original()


def write_models(folder: Path, preset: str = "tiny-predict2-multiview", **sizes: int) -> None:
    """``dit/both.pt`` with regular and averaged weights, ``vae`` and ``text`` under ``folder``."""
    (folder / "dit").mkdir(parents=True)
    (folder / "dit" / MODEL_CONFIG).write_text(json.dumps(DiTConfig.preset(preset, **{**SIZES, **sizes}).to_dict()))
    regular, averaged = network(preset, 0, **sizes), network(preset, 1, **sizes)
    both = regular | {name.replace("net.", "net_ema.", 1): value for name, value in averaged.items()}
    torch.save(both, folder / "dit" / "both.pt")
    save_tiny_text_encoder(folder / "text", width=SIZES["text_width"])
    save_tiny_wan_vae(folder / "vae")


def write_released(folder: Path) -> None:
    """Both multiview networks of Predict1 of a few kilobytes, their tokenizer and text encoder, as a release has them
    under ``--checkpoint_dir``."""
    for kind in ("Text2World", "Video2World"):
        preset, place = f"predict1-7b-{kind.lower()}-multiview", f"Cosmos-Predict1-7B-{kind}-Sample-AV-Multiview"
        (folder / place).mkdir(parents=True)
        torch.save(network(preset), folder / place / "model.pt")
        (folder / place / MODEL_CONFIG).write_text(json.dumps(DiTConfig.preset(preset, **SIZES).to_dict()))
    torch.manual_seed(0)
    save_tokenizer(folder / "Cosmos-Tokenize1-CV8x8x8-720p", build_tokenizer("CV8x8x8-720p", channels=16), name="tiny")
    save_tiny_text_encoder(folder / "google-t5/t5-11b", width=SIZES["text_width"])


def picture(camera: int, frames: int = 9, height: int = HEIGHT, width: int = WIDTH) -> Tensor:
    """(3, T, H, W) uint8 that tells the cameras apart, and their frames."""
    rows = torch.arange(height * width).view(1, 1, height, width) * (camera + 3) % 160
    return (rows + torch.arange(frames).view(1, frames, 1, 1) * 5).expand(3, -1, -1, -1).to(torch.uint8)


def write_clips(folder: Path, cameras: list[str], frames: int = 9, fps: float = 8) -> None:
    """``CAMERA.mp4`` for each, alike whatever the order of the list."""
    for camera in cameras:
        write_mp4(folder / f"{camera}.mp4", picture(sum(map(ord, camera)), frames).contiguous(), fps, quality=0)
