"""Generation with a Wan VAE as the tokenizer, and where one is looked for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nemo_cosmos as nc
from nemo_cosmos.errors import InputError
from nemo_cosmos.inference import places
from nemo_cosmos.inference.config import GenerationConfig, WeightDefaults
from nemo_cosmos.inference.pipelines.world import plan_video
from nemo_cosmos.models.dit import DiTConfig
from nemo_cosmos.models.video_tokenizer import open_tokenizer
from tests.inference.runs import write_models
from tests.models.wan import save_tiny_wan_vae

SMALL = {"height": 32, "width": 48, "num_steps": 2, "seed": 1}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run and the text encoder of the other tests, a Wan VAE in both forms."""
    path = tmp_path_factory.mktemp("wan")
    write_models(path)
    vae = open_tokenizer(save_tiny_wan_vae(path / "vae"))
    vae.save_original(path / "repository" / "tokenizer")  # type: ignore[attr-defined]
    return path


def test_generation_takes_it_in_each_form(folder: Path) -> None:
    models = {"text_encoder": folder / "text", "guardrail": False}
    # 13 frames are no length of the Cosmos tokenizer with a compression of 8, and 4 latent frames here.
    options = {**SMALL, "num_frames": 13, "video": folder / "clip.mp4", "num_input_frames": 5}
    videos = []
    for place in ("vae", "repository", "repository/tokenizer/tokenizer.pth"):
        pipe = nc.Pipeline.from_pretrained(folder / "run", tokenizer=folder / place, **models)
        videos.append(pipe("go", **options))
    assert videos[0].shape == (13, 32, 48, 3)
    assert np.array_equal(videos[0], videos[1]) and np.array_equal(videos[0], videos[2])
    with pytest.raises(InputError, match=r"num_frames=12: .*nearest legal 9 or 13"):
        pipe("go", **{**options, "num_frames": 12})


def test_where_nothing_tells_a_length_it_is_asked_for(folder: Path) -> None:
    """The Cosmos tokenizers have a chunk, which is the default there."""
    config, vae = GenerationConfig(height=32, width=48), open_tokenizer(folder / "vae")
    with pytest.raises(InputError, match="num_frames: neither the weights nor Wan2"):
        plan_video(config, WeightDefaults(), vae, DiTConfig.preset("tiny-video2world"), has_input=False)


def test_a_repository_with_a_network_gives_its_vae_alone(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, ...]] = []
    found = folder / "repository"

    def fetch(name: str, files: Any) -> Path:
        asked.append(tuple(files))
        return found

    monkeypatch.setattr(places, "fetch_to_cache", fetch)
    assert places.find_tokenizer("nvidia/Cosmos-Predict2-2B-Video2World") == found
    assert len(asked) == 1 and "model.pt" not in asked[0] and "tokenizer/tokenizer.pth" in asked[0]
    found = tmp_path
    assert places.find_tokenizer("nvidia/Cosmos-Tokenize1-CV8x8x8-720p") == found
    assert "model.pt" in asked[-1] and len(asked) == 3
    assert places.find_tokenizer(folder / "vae") == folder / "vae" and len(asked) == 3
