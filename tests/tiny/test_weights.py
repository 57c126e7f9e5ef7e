"""The weights that come with the package: whole, small enough, documented, and trained."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch

from nemo_cosmos.checkpoint.sources import preset_of
from nemo_cosmos.checksums import read_manifest, verify
from nemo_cosmos.models.dit import DiTConfig
from nemo_cosmos.models.dit.state_dict import original_shapes
from nemo_cosmos.models.tokenizer.metrics import psnr
from nemo_cosmos.models.video_tokenizer import open_tokenizer
from nemo_cosmos.pixels import from_levels
from nemo_cosmos.prepare.sample_data import draw_scene, render_scene
from nemo_cosmos.tiny import PARTS
from tests.tiny.model import NETWORKS

MOST = 24_000_000
"""Bytes of the folder."""


def test_folder_is_whole_documented_and_small_enough(weights: Path) -> None:
    assert verify(weights, "full")
    files = [file for file in weights.rglob("*") if file.is_file()]
    assert sum(file.stat().st_size for file in files) <= MOST
    assert all(file.stat().st_mode & 0o444 == 0o444 for file in files)
    assert "Apache License" in (weights / "LICENSE").read_text(encoding="utf-8")
    card = (weights / "README.md").read_text(encoding="utf-8")
    assert all(name in card for name in (*NETWORKS, "train_tiny_model.py", "held-out", " dB"))
    assert "README.md" in read_manifest(weights / "checksums.json")


def test_list_of_what_was_trained_on_names_each_clip_and_each_photograph(weights: Path) -> None:
    seen = json.loads((weights / "training_list.json").read_text(encoding="utf-8"))
    assert len({clip["sha256"] for clip in seen["clips"]}) == len(seen["clips"]) > 1000
    assert all(one["licence"] and one["package"] for one in seen["photographs"])
    known = {one["name"] for one in seen["photographs"]}
    assert known and all(command.startswith("nemo-cosmos sample-data") for command in seen["made_by"].values())


def test_sizes_are_those_that_are_promised(weights: Path) -> None:
    tokenizer = open_tokenizer(weights / PARTS["tokenizer"])
    module = tokenizer.module  # type: ignore[union-attr]
    assert sum(parameter.numel() for parameter in module.parameters()) <= 3_000_000
    presets = [preset_of(name) for name in NETWORKS]
    shapes = [original_shapes(DiTConfig.preset(preset)) for preset in presets if preset]
    assert len(shapes) == len(NETWORKS)
    assert sum(torch.Size(shape).numel() for table in shapes for shape in table.values()) <= 12_000_000


def test_tokenizer_has_learned_to_see(weights: Path) -> None:
    """On a clip that is drawn as none of the training is."""
    frames = render_scene(draw_scene(np.random.default_rng(5), 0), 9, (96, 128))
    video = from_levels(torch.from_numpy(frames).movedim(-1, 0)).unsqueeze(0)
    tokenizer = open_tokenizer(weights / PARTS["tokenizer"])
    with torch.no_grad():
        decoded = tokenizer.decode(tokenizer.encode(video))
    assert float(psnr(video, decoded)) > 27.0
