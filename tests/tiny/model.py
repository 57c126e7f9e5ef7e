"""``nemo-cosmos-tiny`` for tests: the packaged folder, or one of its layout with random weights."""

from __future__ import annotations

from pathlib import Path

import torch

from nemo_cosmos import tiny
from nemo_cosmos.checkpoint.files import save_tensors
from nemo_cosmos.checkpoint.sources import preset_of
from nemo_cosmos.models.dit import DiTConfig, build_dit
from nemo_cosmos.models.text import save_tiny_text_encoder
from nemo_cosmos.models.tokenizer import build_tokenizer
from nemo_cosmos.models.tokenizer.pretrained import save_tokenizer

NETWORKS = (
    "Cosmos-Predict1-Tiny-Video2World",
    "Cosmos-Predict1-Tiny-Text2World",
    "Cosmos-Predict2-Tiny-Video2World",
    "Cosmos-Predict2-Tiny-Text2Image",
)


def checkpoints(empty: Path) -> Path:
    """The packaged folder where the weights are there, else one that is written below ``empty``."""
    if tiny.FOLDER.is_dir():
        return tiny.FOLDER
    for seed, name in enumerate(NETWORKS):
        network = build_dit(DiTConfig.preset(preset_of(name)), seed=seed)
        generator = torch.Generator().manual_seed(seed)
        # A network that was never trained gives zeros: its last layer starts there.
        for parameter in network.final_layer.parameters():
            parameter.data.normal_(std=0.05, generator=generator)
        (empty / name).mkdir(parents=True)
        weights = {
            key: value.to(torch.bfloat16) if value.is_floating_point() else value
            for key, value in network.to_original().items()
        }
        save_tensors(empty / name / "model.pt", weights)
    torch.manual_seed(0)
    module = build_tokenizer(
        "CV4x8x8-360p", name="CV4x8x8-Tiny", channels=8, channels_mult=[1, 2], patch_size=4, chunk_frames=17
    ).to(torch.bfloat16)
    mean, std = torch.zeros(16, 5), torch.ones(16, 5)
    save_tokenizer(empty / tiny.PARTS["tokenizer"], module, name="CV4x8x8-Tiny", mean=mean, std=std)
    save_tiny_text_encoder(empty / tiny.PARTS["text_encoder"], width=64)
    return empty
