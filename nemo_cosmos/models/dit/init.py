"""Initial weights for training from scratch, the same under every parallel layout."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping

import torch
from torch import Generator, Tensor, nn

from nemo_cosmos.models.dit.config import DiTConfig
from nemo_cosmos.models.dit.families import Initial
from nemo_cosmos.models.dit.parameters import parameters


def _truncated_normal(out: Tensor, generator: Generator) -> Tensor:
    """Standard deviation 1/√D_in, cut at three of them."""
    std = out.shape[1] ** -0.5
    return nn.init.trunc_normal_(out, std=std, a=-3 * std, b=3 * std, generator=generator)


RULES: Mapping[Initial, Callable[[Tensor, Generator], Tensor]] = {
    "ones": lambda out, generator: out.fill_(1.0),
    "zeros": lambda out, generator: out.zero_(),
    "normal": lambda out, generator: out.normal_(generator=generator),
    "small_normal": lambda out, generator: out.normal_(std=0.02, generator=generator),
    "xavier_uniform": lambda out, generator: nn.init.xavier_uniform_(out, generator=generator),
    "truncated_normal": _truncated_normal,
}


class InitialWeights(Mapping[str, Tensor]):
    """A state dict with released names whose tensors are drawn one at a time, when asked for.

    Each tensor has a generator seeded by (seed, name), and the rule that the table of parameters names.
    """

    def __init__(self, config: DiTConfig, seed: int) -> None:
        self.seed = seed
        self._parameters = {name: one for one in parameters(config) for name in one.released}

    def __iter__(self) -> Iterator[str]:
        return iter(self._parameters)

    def __len__(self) -> int:
        return len(self._parameters)

    def shape_of(self, name: str) -> tuple[int, ...]:
        """The shape of a tensor, without drawing it."""
        return self._parameters[name].shape

    def __getitem__(self, name: str) -> Tensor:
        parameter = self._parameters[name]
        digest = hashlib.sha256(f"{self.seed}/{name}".encode()).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "little", signed=True))
        return RULES[parameter.initial](torch.empty(parameter.shape), generator)
