"""Weights of a network that knows fewer cameras, as those of one that knows more: further rows of the view table."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from nemo_cosmos.models.dit.config import DiTConfig
from nemo_cosmos.models.dit.growth import GrownWeights
from nemo_cosmos.models.dit.init import InitialWeights
from nemo_cosmos.models.dit.parameters import parameters

VIEW_TABLE = "view_embedding.weight"


class MoreViews(GrownWeights):
    """A state dict whose view table goes on with rows that are drawn as for training from scratch.

    Args:
        config: the network with all rows.
        state: released names, with or without ``net.``.
        name: of the view table there.
        rows: of the table there.
        seed: of the run; the new rows do not depend on the parallel layout.
    """

    def __init__(self, config: DiTConfig, state: Mapping[str, Tensor], name: str, rows: int, seed: int) -> None:
        super().__init__(config, state, name, {})
        self.rows, self.seed = rows, seed

    @property
    def grown(self) -> str:
        """What was done, for a report."""
        table = self.name.removeprefix("net.")
        own = f"{table} from {self.rows} to {self.config.num_views} views, the new ones start anew"
        before: str | None = getattr(self.base, "grown", None)
        return own if before is None else f"{before}; {own}"

    def shape_of(self, name: str) -> tuple[int, ...]:
        """The shape of a tensor, without making it."""
        if name == self.name:
            return self.config.num_views, self.config.view_channels
        return super().shape_of(name)

    def __getitem__(self, name: str) -> Tensor:
        tensor = self.base[name]
        if name != self.name:
            return tensor
        new = InitialWeights(self.config, self.seed)[name.removeprefix("net.")][self.rows :]
        return torch.cat([tensor, new.to(tensor)])


def view_table_rows(config: DiTConfig, state: Mapping[str, Tensor]) -> tuple[str, int] | None:
    """Name and rows of the view table in weights, None where there is none of the network's width."""
    if not config.multiview:
        return None
    released = next(one.released[0] for one in parameters(config) if one.name == VIEW_TABLE)
    name = next((key for key in (released, f"net.{released}") if key in state), None)
    if name is None:
        return None
    shape_of = getattr(state, "shape_of", None)
    shape = tuple(shape_of(name) if shape_of is not None else state[name].shape)
    return (name, shape[0]) if len(shape) == 2 and shape[1] == config.view_channels else None


def with_more_views(config: DiTConfig, state: Mapping[str, Tensor], seed: int) -> Mapping[str, Tensor]:
    """The weights with further rows where their view table has fewer than the network; others as they are."""
    found = view_table_rows(config, state)
    if found is None or found[1] >= config.num_views:
        return state
    return MoreViews(config, state, *found, seed)
