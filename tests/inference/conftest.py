"""Stand-ins for the models: a network that knows the answer, and a tokenizer that averages blocks of pixels."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nemo_cosmos.data.sample import TokenizerIdentity
from nemo_cosmos.diffusion import expand_to_latent, output_for_clean
from nemo_cosmos.errors import InputError
from nemo_cosmos.inference.sampling import sampling_objective
from nemo_cosmos.models.dit.config import DiTConfig

TEXT_WIDTH = 8


class IdealNetwork(nn.Module):
    """Answers with the output that makes x0 a known latent, shifted by the mean of the text embedding."""

    def __init__(self, dit: DiTConfig, target: Tensor | float = 0.0) -> None:
        super().__init__()
        self.dit_config = dit
        self.weight = nn.Parameter(torch.zeros(1))
        self.target = target
        self.calls: list[dict[str, Tensor | None]] = []

    def forward(self, x, timesteps, text, *, fps=None, padding_mask=None, condition_mask=None, **views):
        self.calls.append(
            {
                "x": x,
                "timesteps": timesteps,
                "text": text,
                "fps": fps,
                "padding_mask": padding_mask,
                "condition_mask": condition_mask,
                **views,
            }
        )
        p = sampling_objective(self.dit_config).preconditioning
        if timesteps.ndim == 2:
            timesteps = timesteps[:, -1]
        sigma = torch.exp(4 * timesteps) if self.dit_config.family == "predict1" else timesteps / (1 - timesteps)
        state = x / expand_to_latent(p.c_in(sigma))
        clean = (torch.zeros_like(x) + self.target) * p.sigma_data + expand_to_latent(text.mean((1, 2)))
        return output_for_clean(p, state, sigma, clean)


class BlockTokenizer:
    """Latents are block means: 8x8 pixels, the first frame alone, then 4 frames each; 3 of 16 channels are used."""

    name = "blocks"
    temporal_compression, spatial_compression, latent_channels, chunk_frames = 4, 8, 16, 17
    identity = TokenizerIdentity("blocks", "0" * 64, 4, 8, 16)

    def __init__(self) -> None:
        self.encoded: list[Tensor] = []

    def to(self, *, device):
        return self

    def latent_frames(self, num_frames: int) -> int:
        if num_frames % 4 != 1:
            raise InputError(f"{num_frames} frames: nearest legal {num_frames // 4 * 4 + 1}")
        return 1 + (num_frames - 1) // 4

    def encode(self, video: Tensor) -> Tensor:
        self.latent_frames(video.shape[2])
        self.encoded.append(video)
        small = F.avg_pool3d(video, (1, 8, 8))
        rest = F.avg_pool3d(small[:, :, 1:], (4, 1, 1)) if video.shape[2] > 1 else small[:, :, :0]
        latent = torch.cat([small[:, :, :1], rest], dim=2)
        return torch.cat([latent, latent.new_zeros(latent.shape[0], 13, *latent.shape[2:])], dim=1)

    def decode(self, latent: Tensor) -> Tensor:
        video = torch.cat([latent[:, :3, :1], latent[:, :3, 1:].repeat_interleave(4, dim=2)], dim=2)
        return F.interpolate(video, scale_factor=(1, 8, 8), mode="nearest")


class WordEncoder:
    """One row per word, whose entries are its length / 100."""

    name, width, max_length = "words", TEXT_WIDTH, 6

    def __init__(self) -> None:
        self.seen: list[str] = []

    def to(self, *, device):
        return self

    def token_count(self, caption):
        return len(caption.split())

    def encode_trimmed(self, captions):
        self.seen += captions
        captions = [" ".join(c.split()[: self.max_length]) for c in captions]
        return [
            torch.tensor([[len(w) / 100] * TEXT_WIDTH for w in c.split()]).reshape(-1, TEXT_WIDTH) for c in captions
        ]


@dataclass
class Fakes:
    network: type[IdealNetwork] = IdealNetwork
    tokenizer: type[BlockTokenizer] = BlockTokenizer
    text_encoder: type[WordEncoder] = WordEncoder
    text_width: int = TEXT_WIDTH
    presets: dict[str, DiTConfig] = field(default_factory=dict)

    def dit(self, preset: str = "tiny-video2world", **overrides) -> DiTConfig:
        return DiTConfig.preset(preset, text_width=TEXT_WIDTH, **overrides)


@pytest.fixture
def fakes() -> Fakes:
    return Fakes()


@pytest.fixture
def models(fakes):
    """A function that builds the parts of a pipeline from stand-ins."""
    from nemo_cosmos.inference.components import Component
    from nemo_cosmos.inference.models import Models

    def build(preset: str = "tiny-video2world", target: Tensor | float = 0.25, **parts):
        dit = fakes.dit(preset)
        built = {
            "network": IdealNetwork(dit, target),
            "tokenizer": BlockTokenizer(),
            "text_encoder": WordEncoder(),
            **parts,
        }
        components = {
            name: part if part is None or isinstance(part, Component) else Component(name, lambda _, p=part: p)
            for name, part in built.items()
        }
        return Models(dit=dit, **components)

    return build
