"""Post-train the packaged Video2World network, export, convert, generate: the same frames from every form."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import nemo_cosmos as nc
from nemo_cosmos.checkpoint.convert import convert
from nemo_cosmos.checkpoint.lora import adapter_folder
from nemo_cosmos.data.video import write_mp4
from nemo_cosmos.tiny import TINY

PROMPT = "A red cube moves left."
SMALL: dict[str, Any] = {"image": "frame.png", "height": 32, "width": 48, "num_frames": 5, "num_steps": 2, "fps": 8.0}


def train(output: str, **more: Any) -> Path:
    """Two steps from the packaged weights, on latents of 32 × 48 pixels."""
    clip = torch.arange(5 * 32 * 48).view(1, 5, 32, 48) * 7 % 256
    Path("clips").mkdir()
    write_mp4(Path("clips/one.mp4"), clip.expand(3, 5, 32, 48).to(torch.uint8).contiguous(), fps=8)
    Path("clips/one.txt").write_text(PROMPT)
    nc.prepare("clips", "shards", tokenizer=TINY, text_encoder=TINY, frames=5, size=(32, 48), workers=0)
    return nc.train("tiny_predict1_video2world", {
        "model.init_from": TINY, "data.path": "shards", "data.micro_batch": 1,
        "data.global_batch": 1, "data.num_workers": 0, "trainer.max_steps": 2, "trainer.precision": "fp32",
        "trainer.log_every_n_steps": 1, "optimizer.warmup_steps": 0, "optimizer.lr": 1e-2, "output_dir": output,
        **more,
    })  # fmt: skip


def frames(model: str | Path, **more: Any) -> np.ndarray:
    pipe = nc.Pipeline.from_pretrained(model, tokenizer=TINY, text_encoder=TINY, **more)
    return pipe(PROMPT, **SMALL)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_every_form_of_a_trained_network_gives_the_same_frames(precision: str, here: Path) -> None:
    run = train("run", **{"trainer.precision": precision})
    expected = frames(run)
    assert not np.array_equal(expected, frames(TINY))
    exported = next((run / "checkpoints").glob("*_ema_model.pt"))
    assert np.array_equal(frames(exported), expected)
    convert(run, "model.pt", "pt")
    convert("model.pt", "transformer", "diffusers", preset="predict1-tiny-video2world")
    convert("transformer", "back.pt", "pt")
    convert("back.pt", "again", "run", preset="predict1-tiny-video2world")
    for file in ("model.pt", "back.pt"):
        assert np.array_equal(frames(file, preset="predict1-tiny-video2world"), expected)
    assert np.array_equal(frames("transformer"), expected)
    assert np.array_equal(frames("again", weights="reg"), expected)


def test_adapters_trained_beside_the_packaged_network(here: Path) -> None:
    run = train("run", **{"lora.enabled": True, "lora.rank": 4})
    expected = frames(run)
    merged = frames(TINY, lora=adapter_folder(run / "checkpoints", 2, "ema"))
    assert not np.array_equal(merged, frames(TINY))
    assert np.abs(merged.astype(int) - expected.astype(int)).max() <= 1


def test_the_packaged_network_in_other_forms(here: Path) -> None:
    expected = frames(TINY)
    convert(TINY, "model.pt", "pt", dtype=torch.float32)
    convert(TINY, "transformer", "diffusers")
    assert np.array_equal(frames("model.pt", preset="predict1-tiny-video2world"), expected)
    assert np.array_equal(frames("transformer"), expected)
