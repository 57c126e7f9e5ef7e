"""Initial weights for training from scratch, the same under every parallel layout."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from nemo_cosmos.models.dit.config import DiTConfig
from nemo_cosmos.models.dit.state_dict import original_shapes

_MODULATION_2 = re.compile(r"blocks\..*(adaLN_modulation|adaln_modulation_\w+)\.2\.weight$")


class InitialWeights(Mapping[str, Tensor]):
    """A state dict with released names whose tensors are drawn one at a time, when asked for.

    Each tensor has a generator seeded by (seed, name). Predict1 draws Xavier-uniform matrices, Predict2 normal ones
    cut at three standard deviations; the second matrix of every layer's modulation starts at zero.
    """

    def __init__(self, config: DiTConfig, seed: int) -> None:
        self.config, self.seed = config, seed
        self.shapes = original_shapes(config)

    def __iter__(self) -> Iterator[str]:
        return iter(self.shapes)

    def __len__(self) -> int:
        return len(self.shapes)

    def shape_of(self, name: str) -> tuple[int, ...]:
        """The shape of a tensor, without drawing it."""
        return self.shapes[name]

    def __getitem__(self, name: str) -> Tensor:
        shape = self.shapes[name]
        digest = hashlib.sha256(f"{self.seed}/{name}".encode()).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "little", signed=True))
        out = torch.empty(shape)
        if len(shape) == 1:
            return out.zero_() if name.endswith("bias") else out.fill_(1.0)
        if name == "view_embeddings.weight":
            return out.normal_(generator=generator)
        if name.startswith("extra_pos_embedder."):
            return out.normal_(std=0.02, generator=generator)
        if _MODULATION_2.match(name) or (
            self.config.family == "predict2" and name.endswith("adaln_modulation.2.weight")
        ):
            return out.zero_()
        if self.config.family == "predict1":
            if name.startswith("t_embedder."):
                return out.normal_(std=0.02, generator=generator)
            return torch.nn.init.xavier_uniform_(out, generator=generator)
        std = shape[1] ** -0.5
        return torch.nn.init.trunc_normal_(out, std=std, a=-3 * std, b=3 * std, generator=generator)
