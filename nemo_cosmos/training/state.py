"""What a save of a run holds: weights, main parameters, moments and the average, each as this rank's parts.

Names in a save, for a parameter whose sharded state dict calls it ``module.net.NAME`` or ``module.logvar.NAME``:

- that name: the weight as the network holds it, frozen ones included;
- ``optimizer.state.param.`` before it: the fp32 main parameter of a weight in lower precision (a weight in fp32 is its
  own main parameter);
- ``optimizer.state.exp_avg.`` and ``optimizer.state.exp_avg_sq.`` before it: Adam's moments, fp32;
- ``ema.`` before it: the moving average, fp32.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from megatron.core import parallel_state
from megatron.core.dist_checkpointing.mapping import ShardedTensor
from megatron.core.optimizer import MegatronOptimizer
from torch import Tensor, nn

from nemo_cosmos.checkpoint.distributed import EMA
from nemo_cosmos.checkpoint.sharded import TensorPart
from nemo_cosmos.checkpoint.store import CheckpointReader
from nemo_cosmos.training.ema import ShardedEma
from nemo_cosmos.training.optimizer import MainShard, adam_state, is_split, main_shards

MAIN = "optimizer.state.param."
MOMENTS = ("exp_avg", "exp_avg_sq")


@dataclass(frozen=True)
class RunState:
    """The tensors of a run on this rank.

    Args:
        model: Megatron's sharded state dict of the network, of every virtual stage.
        optimizer: with Adam's state made.
        ema: None where the run keeps no average.
    """

    model: Mapping[str, Any]
    optimizer: MegatronOptimizer
    ema: ShardedEma | None

    def to_save(self) -> list[TensorPart]:
        """This rank's share: over all ranks every element occurs once."""
        places = [place for place in sharded_tensors(self.model) if _is_first_copy(place)]
        weights = [_part(place, place.key, place.data, 0) for place in _own_share(places)]
        return [*weights, *self._trained(places, saving=True)]

    def to_load(self, reader: CheckpointReader) -> list[TensorPart]:
        """Everything that this rank needs of a save, into the memory of the run.

        A save in another precision gives fp32 values wherever it has them.
        """
        places = list(sharded_tensors(self.model))
        weights = []
        for place in places:
            main = f"{MAIN}{place.key}"
            exact = place.data.dtype == torch.float32 and main in reader
            weights.append(_part(place, main if exact else place.key, place.data, 0))
        trained = [
            part if part.key in reader else _renamed(part, part.key.removeprefix(MAIN))
            for part in self._trained(places, saving=False)
        ]
        return [*weights, *trained]

    def _trained(self, places: list[ShardedTensor], *, saving: bool) -> Iterator[TensorPart]:
        by_parameter = {id(place.data): place for place in places if isinstance(place.data, nn.Parameter)}
        averages: dict[int, Tensor] = {}
        if self.ema is not None:
            averages = {id(s.parameter): a for s, a in zip(self.ema.shards, self.ema.averages, strict=True)}
        shards = [shard for shard in main_shards(self.optimizer) if id(shard.parameter) in by_parameter]
        if saving and not is_split(self.optimizer):
            # Every data-parallel rank holds all of it.
            mine = {id(place) for place in _own_share([by_parameter[id(shard.parameter)] for shard in shards])}
            shards = [shard for shard in shards if id(by_parameter[id(shard.parameter)]) in mine]
        for shard in shards:
            place = by_parameter[id(shard.parameter)]
            yield from self._states(shard, place, averages.get(id(shard.parameter)))

    def _states(self, shard: MainShard, place: ShardedTensor, average: Tensor | None) -> Iterator[TensorPart]:
        if shard.parameter.dtype != torch.float32:
            yield _part(place, f"{MAIN}{place.key}", shard.main, shard.start)
        state = adam_state(self.optimizer, shard.main)
        for moment in MOMENTS:
            yield _part(place, f"optimizer.state.{moment}.{place.key}", state[moment], shard.start)
        if average is not None:
            yield _part(place, f"{EMA}{place.key}", average, shard.start)


def sharded_tensors(model: Mapping[str, Any]) -> Iterator[ShardedTensor]:
    """The entries of Megatron's sharded state dict; with virtual stages it holds one dict a stage."""
    for value in model.values():
        if isinstance(value, Mapping):
            yield from sharded_tensors(value)
        elif isinstance(value, ShardedTensor):
            yield value


def _is_first_copy(place: ShardedTensor) -> bool:
    """Whether this rank holds the copy to save, data parallelism aside."""
    stage, tensor_rank, _ = place.replica_id
    return stage == 0 and tensor_rank == 0


def _own_share(places: list[ShardedTensor]) -> list[ShardedTensor]:
    """Of tensors that all data-parallel ranks hold alike, those that this one writes: about as many bytes on each."""
    group = parallel_state.get_data_parallel_group(with_context_parallel=True)
    total = sum(place.data.nbytes for place in places)
    mine, before = [], 0
    for place in places:
        if before * group.size() // max(total, 1) == group.rank():
            mine.append(place)
        before += place.data.nbytes
    return mine


def _part(place: ShardedTensor, key: str, data: Tensor, start: int) -> TensorPart:
    return TensorPart(key, data, place.global_shape, place.global_offset, place.local_shape, start)


def _renamed(part: TensorPart, key: str) -> TensorPart:
    return TensorPart(key, part.data, part.global_shape, part.offset, part.shape, part.start)
