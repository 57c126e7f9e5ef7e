"""The tensors of a released file, made one at a time from wherever the weights lie."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from nemo_cosmos.checkpoint.stream import dtype_of, shape_of
from nemo_cosmos.models.dit import DiTConfig
from nemo_cosmos.models.dit.state_dict import original_buffers, original_shapes


class ReleasedTensors(Mapping[str, Tensor]):
    """Position buffers and parameters under their released names with ``net.``, then ``logvar.*``.

    Args:
        state: released names, with or without ``net.``; buffers that it lacks are made anew.
        dtype: of the parameters; None keeps what the source has.
    """

    def __init__(self, config: DiTConfig, state: Mapping[str, Tensor], *, dtype: torch.dtype | None = None) -> None:
        self.state, self.dtype = state, dtype
        given = {name.removeprefix("net."): name for name in state}
        self._buffers = {
            f"net.{name}": state[given[name]] if name in given else tensor
            for name, tensor in original_buffers(config).items()
        }
        self._given = {f"net.{name}": given[name] for name in original_shapes(config)}
        self._logvar = [name for name in state if name.startswith("logvar.")]

    def __iter__(self) -> Iterator[str]:
        yield from self._buffers
        yield from self._given
        yield from self._logvar

    def __len__(self) -> int:
        return len(self._buffers) + len(self._given) + len(self._logvar)

    def shape_of(self, name: str) -> tuple[int, ...]:
        """The shape of a tensor, without making it."""
        if name in self._buffers:
            return tuple(self._buffers[name].shape)
        return shape_of(self.state, self._given.get(name, name))

    def dtype_of(self, name: str) -> torch.dtype:
        """The dtype of a tensor, without making it."""
        if name in self._buffers:
            return self._buffers[name].dtype
        converted = self.dtype if name in self._given else None
        return converted or dtype_of(self.state, self._given.get(name, name))

    def __getitem__(self, name: str) -> Tensor:
        if name in self._buffers:
            return self._buffers[name]
        if name not in self._given:
            return self.state[name]
        tensor = self.state[self._given[name]]
        return tensor if self.dtype is None else tensor.to(self.dtype)


class JointTensors(Mapping[str, Tensor]):
    """Regular weights under ``net.`` and the averaged network under ``net_ema.``, as the commands of Predict2 save."""

    def __init__(self, regular: ReleasedTensors, averaged: ReleasedTensors | None) -> None:
        self._where: dict[str, tuple[ReleasedTensors, str]] = {name: (regular, name) for name in regular}
        for name in averaged or ():
            if name.startswith("net."):
                assert averaged is not None
                self._where[f"net_ema.{name.removeprefix('net.')}"] = (averaged, name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._where)

    def __len__(self) -> int:
        return len(self._where)

    def shape_of(self, name: str) -> tuple[int, ...]:
        """The shape of a tensor, without making it."""
        tensors, key = self._where[name]
        return tensors.shape_of(key)

    def dtype_of(self, name: str) -> torch.dtype:
        """The dtype of a tensor, without making it."""
        tensors, key = self._where[name]
        return tensors.dtype_of(key)

    def __getitem__(self, name: str) -> Tensor:
        tensors, key = self._where[name]
        return tensors[key]
