"""A whole diffusers pipeline from a network, a tokenizer and a text encoder."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from diffusers import CosmosTextToWorldPipeline, CosmosVideoToWorldPipeline
from PIL import Image

from nemo_cosmos.checkpoint.convert import convert
from nemo_cosmos.checkpoint.files import save_tensors
from nemo_cosmos.errors import InputError
from nemo_cosmos.models.dit import DiTConfig, build_dit
from nemo_cosmos.models.text import save_tiny_text_encoder
from nemo_cosmos.models.tokenizer import build_tokenizer
from nemo_cosmos.models.tokenizer.pretrained import save_tokenizer
from tests.models.wan import save_tiny_wan_vae

WIDTH = 16
SIZES = {"num_layers": 2, "hidden_size": 64, "num_attention_heads": 4, "text_width": WIDTH, "adaln_lora_dim": 8}


class NoGuardrail:
    """In the place of cosmos_guardrail, which diffusers' pipelines insist on."""

    def to(self, device: object) -> None:
        pass

    def check_text_safety(self, text: str) -> bool:
        return True

    def check_video_safety(self, video: object) -> object:
        return video


@pytest.fixture
def parts(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    tokenizer = build_tokenizer("CV8x8x8-720p", channels=8)
    statistics = torch.zeros(16, 16), torch.ones(16, 16)
    save_tokenizer(tmp_path / "vae", tokenizer, name="tiny", mean=statistics[0], std=statistics[1])
    save_tiny_text_encoder(tmp_path / "text", width=WIDTH)
    return tmp_path


@pytest.mark.usefixtures("nearest_resize")
@pytest.mark.parametrize("preset", ["tiny-video2world", "tiny-text2world"])
def test_pipeline_generates(preset: str, parts: Path) -> None:
    save_tensors(parts / "model.pt", build_dit(DiTConfig.preset(preset, **SIZES), seed=1).to_original())
    target = parts / "pipeline"
    convert(
        parts / "model.pt", target, "pipeline", preset=preset, overrides=SIZES, vae=parts / "vae",
        text_encoder=str(parts / "text"),
    )  # fmt: skip
    options = {
        "prompt": "a red disc", "height": 32, "width": 48, "num_frames": 9, "num_inference_steps": 2,
        "output_type": "pt", "generator": torch.Generator().manual_seed(0), "max_sequence_length": 32,
    }  # fmt: skip
    if preset == "tiny-video2world":
        pipeline = CosmosVideoToWorldPipeline.from_pretrained(target, safety_checker=NoGuardrail())
        options["image"] = Image.new("RGB", (48, 32), (200, 30, 30))
    else:
        pipeline = CosmosTextToWorldPipeline.from_pretrained(target, safety_checker=NoGuardrail())
    pipeline.set_progress_bar_config(disable=True)
    video = pipeline(**options).frames
    assert video.shape == (1, 9, 3, 32, 48)
    assert torch.isfinite(torch.as_tensor(video)).all()


def test_parts_that_do_not_fit(parts: Path) -> None:
    save_tensors(parts / "model.pt", build_dit(DiTConfig.preset("tiny-text2world", **SIZES), seed=1).to_original())
    save_tiny_text_encoder(parts / "wide", width=24)

    def make(vae: Path, text_encoder: Path) -> None:
        convert(
            parts / "model.pt", parts / "pipeline", "pipeline", preset="tiny-text2world", overrides=SIZES, vae=vae,
            text_encoder=str(text_encoder),
        )  # fmt: skip

    with pytest.raises(InputError, match="text of width 24, the network takes 16"):
        make(parts / "vae", parts / "wide")
    with pytest.raises(InputError, match="no such tokenizer folder"):
        make(parts / "gone", parts / "text")
    with pytest.raises(InputError, match="a pipeline of predict1 needs a folder of AutoencoderKLCosmos"):
        make(save_tiny_wan_vae(parts / "wan"), parts / "text")
    with pytest.raises(InputError, match="no T5 encoder"):
        make(parts / "vae", parts / "vae")
    assert not (parts / "pipeline").exists()
    assert not list(parts.glob(".pipeline*"))
