"""Weights of a network with fewer input channels, as those of one that has more: new columns are zero.

A row of the patch embedding has one column for each channel and place in a patch, channel by channel. New channels
stand between others (camera rays come before the padding mask), so columns are moved by the names of the channels,
never by their number. With zero columns the network computes what it did, whatever the new channels hold.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor

from nemo_cosmos.errors import InputError
from nemo_cosmos.models.dit.config import DiTConfig
from nemo_cosmos.models.dit.parameters import parameters

PATCH_EMBEDDING = "patch_embedding.weight"
ADDED = ("plucker",)
"""Channels that weights may lack, by their names in :attr:`DiTConfig.channel_groups`."""


def column_map(source: Mapping[str, int], target: Mapping[str, int], patch_size: int) -> list[int | None]:
    """For every column of the target's patch embedding the column of the source's that it is, None where it is new.

    Args:
        source, target: channels by name in their order, as :attr:`DiTConfig.channel_groups` gives them.
        patch_size: rows and columns of a patch; a channel has its square of columns.

    Raises:
        InputError: the source has channels that the target lacks, or as many others under one name.
    """
    for name, channels in source.items():
        if target.get(name) != channels:
            raise InputError(f"{channels} channels of {name}: the network has {target.get(name, 0)}")
    places, first = {}, 0
    for name, channels in source.items():
        places[name] = first
        first += channels * patch_size**2
    columns: list[int | None] = []
    for name, channels in target.items():
        count = channels * patch_size**2
        columns += range(places[name], places[name] + count) if name in places else [None] * count
    return columns


def grow_columns(weight: Tensor, source: Mapping[str, int], target: Mapping[str, int], patch_size: int) -> Tensor:
    """A patch embedding (D, columns of the source) as one of the target, (D, columns of the target), same dtype.

    Raises:
        InputError: as :func:`column_map`, or the weight has another number of columns than the source.
    """
    columns = column_map(source, target, patch_size)
    expected = sum(source.values()) * patch_size**2
    if weight.ndim != 2 or weight.shape[1] != expected:
        raise InputError(f"a patch embedding of {list(weight.shape)}: expected {expected} columns")
    grown = weight.new_zeros(weight.shape[0], len(columns))
    kept = [place for place, column in enumerate(columns) if column is not None]
    grown[:, kept] = weight[:, [column for column in columns if column is not None]]
    return grown


class GrownWeights(Mapping[str, Tensor]):
    """A state dict whose patch embedding has zero columns for channels that its own network does not have.

    Args:
        config: the network with these channels.
        state: released names, with or without ``net.``.
        name: of the patch embedding there.
        source: channels of the weights.
    """

    def __init__(self, config: DiTConfig, state: Mapping[str, Tensor], name: str, source: Mapping[str, int]) -> None:
        self.base, self.config, self.name, self.source = state, config, name, source
        self.taken: str | None = getattr(state, "taken", None)
        self.passed_over: tuple[str, ...] = getattr(state, "passed_over", ())

    @property
    def grown(self) -> str:
        """What was done, for a report."""
        target, area = self.config.channel_groups, self.config.patch_size**2
        columns, first = [], 0
        for name, channels in target.items():
            last = first + channels * area
            if name not in self.source:
                columns.append(f"{first} to {last - 1} of {name}")
            first = last
        before = sum(self.source.values()) * area
        return f"{self.name.removeprefix('net.')} from {before} to {first} columns, {', '.join(columns)} are zero"

    def __iter__(self) -> Iterator[str]:
        return iter(self.base)

    def __len__(self) -> int:
        return len(self.base)

    def shape_of(self, name: str) -> tuple[int, ...]:
        """The shape of a tensor, without making it."""
        if name == self.name:
            return self.config.hidden_size, self.config.patch_features
        return _shape_of(self.base, name) or ()

    def dtype_of(self, name: str) -> torch.dtype:
        """The dtype of a tensor, without making it where the base knows."""
        known = getattr(self.base, "dtype_of", None)
        return known(name) if known is not None else self.base[name].dtype

    def __getitem__(self, name: str) -> Tensor:
        tensor = self.base[name]
        if name != self.name:
            return tensor
        return grow_columns(tensor, self.source, self.config.channel_groups, self.config.patch_size)


def patch_embedding_name(config: DiTConfig) -> str:
    """The released name of the patch embedding, without ``net.``."""
    return next(one.released[0] for one in parameters(config) if one.name == PATCH_EMBEDDING)


def grown_weights(
    config: DiTConfig, state: Mapping[str, Tensor], added: Sequence[str] = ADDED
) -> Mapping[str, Tensor]:
    """The weights with zero columns for those of the channels ``added`` that they lack; others as they are.

    A state is grown only where its patch embedding has exactly the columns of the network without these channels.

    Args:
        state: released names, with or without ``net.``.
        added: names of channels; of several, any part may be missing.
    """
    name = patch_embedding_name(config)
    given = next((key for key in (name, f"net.{name}") if key in state), None)
    shape = None if given is None else _shape_of(state, given)
    if given is None or shape is None or shape == (config.hidden_size, config.patch_features):
        return state
    sources = [one for one in _fewer(config, added) if shape == (config.hidden_size, _columns(config, one))]
    return GrownWeights(config, state, given, sources[0]) if len(sources) == 1 else state


def _fewer(config: DiTConfig, added: Sequence[str]) -> Iterator[dict[str, int]]:
    """The network's channels without some of those ``added``."""
    groups = config.channel_groups
    there = [name for name in added if name in groups]
    for count in range(1, len(there) + 1):
        for missing in itertools.combinations(there, count):
            yield {name: channels for name, channels in groups.items() if name not in missing}


def _columns(config: DiTConfig, groups: Mapping[str, int]) -> int:
    return sum(groups.values()) * config.patch_size**2


def _shape_of(state: Mapping[str, Tensor], name: str) -> tuple[int, ...] | None:
    known = getattr(state, "shape_of", None)
    shape = known(name) if known is not None else getattr(state[name], "shape", None)
    return None if shape is None else tuple(shape)
