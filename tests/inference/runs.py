"""A run folder, tokenizer and text encoder of a few kilobytes, and a job on them that other processes can call."""

from __future__ import annotations

import json
from pathlib import Path

import torch

from nemo_cosmos.checkpoint.files import MODEL_CONFIG, save_tensors, weights_file, write_latest
from nemo_cosmos.data.video import write_mp4
from nemo_cosmos.inference.config import GenerationConfig
from nemo_cosmos.inference.job import GenerationJob, run_job
from nemo_cosmos.inference.requests import GenerationRequest
from nemo_cosmos.models.dit import DiTConfig, build_dit
from nemo_cosmos.models.text import save_tiny_text_encoder
from nemo_cosmos.models.tokenizer import build_tokenizer
from nemo_cosmos.models.tokenizer.pretrained import save_tokenizer

WIDTH = 32


def write_models(folder: Path, preset: str = "tiny-video2world") -> None:
    """``run``, ``tokenizer``, ``text`` and ``clip.mp4`` under ``folder``; everything as training writes it."""
    dit = DiTConfig.preset(preset, hidden_size=64, num_layers=2, adaln_lora_dim=8, text_width=WIDTH, max_frames=16)
    checkpoints = folder / "run" / "checkpoints"
    checkpoints.mkdir(parents=True)
    for seed, kind in enumerate(("ema", "reg")):
        network = build_dit(dit, seed=seed)
        # A network that was never trained gives zeros: its last layer starts there.
        generator = torch.Generator().manual_seed(seed)
        for parameter in network.final_layer.parameters():
            parameter.data.normal_(std=0.05, generator=generator)
        save_tensors(weights_file(checkpoints, 7, kind), network.to_original())
    (checkpoints / MODEL_CONFIG).write_text(json.dumps(dit.to_dict()))
    write_latest(checkpoints, 7)
    (folder / "run" / "config.yaml").write_text("data:\n  path: gone\n  text_length: 12\n")
    torch.manual_seed(0)
    save_tokenizer(folder / "tokenizer", build_tokenizer("CV4x8x8-360p", channels=8), name="tiny")
    save_tiny_text_encoder(folder / "text", width=WIDTH)
    rows = torch.arange(32 * 48).view(1, 1, 32, 48) % 200 + torch.arange(9).view(1, 9, 1, 1) * 5
    write_mp4(folder / "clip.mp4", rows.expand(3, 9, 32, 48).to(torch.uint8).contiguous(), fps=8)


def generate(folder: Path, output: str = "out", kind: str = "ema", **settings: object) -> None:
    """One video from the clip; in a process group all processes share it."""
    config = GenerationConfig(
        **{"height": 32, "width": 48, "num_frames": 9, "num_steps": 3, "crf": 0, **settings}  # type: ignore[arg-type]
    )
    job = GenerationJob(
        weights=folder / "run",
        tokenizer=folder / "tokenizer",
        output=folder / output,
        config=config,
        kind=kind,  # type: ignore[arg-type]
        text_encoder=str(folder / "text"),
    )
    run_job(job, [GenerationRequest("video", "a red disc moves left", folder / "clip.mp4")])


def fail_on_the_first(folder: Path) -> None:
    """Only the first rank reads the input and finds 4 frames illegal; every rank must stop with that mistake."""
    from nemo_cosmos.errors import InputError

    try:
        generate(folder, num_input_frames=4)
    except InputError as error:
        assert "nearest legal 1 or 5" in str(error)
        return
    raise AssertionError("no rank may go on")
