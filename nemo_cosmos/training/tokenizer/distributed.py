"""Data-parallel processes as torchrun starts them; a single process needs no launcher."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor

from nemo_cosmos.errors import InputError


@dataclass(frozen=True)
class Workers:
    """This process among all of them."""

    rank: int
    world: int
    device: torch.device
    started: bool = False
    """Whether :func:`join` started the process group."""

    @property
    def is_main(self) -> bool:
        return self.rank == 0

    def mean(self, values: Mapping[str, Tensor]) -> dict[str, float]:
        """Average of scalars over the processes, one collective for all of them."""
        if not values:
            return {}
        stacked = torch.stack([value.detach().float().to(self.device) for value in values.values()])
        if self.world > 1:
            dist.all_reduce(stacked)
            stacked /= self.world
        return dict(zip(values, stacked.tolist(), strict=True))

    def any(self, value: Tensor) -> bool:
        """Whether a condition holds in one of the processes; collective."""
        flag = value.to(self.device, torch.int32)
        if self.world > 1:
            dist.all_reduce(flag, dist.ReduceOp.MAX)
        return bool(flag)

    def gather(self, values: list[str]) -> list[str]:
        """Those of all processes; collective."""
        if self.world == 1:
            return values
        everyone: list[list[str]] = [[]] * self.world
        dist.all_gather_object(everyone, values)
        return [value for part in everyone for value in part]

    def barrier(self) -> None:
        if self.world > 1:
            dist.barrier()

    def leave(self) -> None:
        """End the process group that :func:`join` started; every process calls it when its work is done."""
        if self.started:
            dist.destroy_process_group()


def join(device: str) -> Workers:
    """Join the process group that torchrun describes in the environment.

    Args:
        device: ``auto`` (CUDA when there is one), ``cpu`` or ``cuda``.
    """
    use_cuda = torch.cuda.is_available() if device == "auto" else device == "cuda"
    if use_cuda and not torch.cuda.is_available():
        raise InputError("trainer.device=cuda: no CUDA device is visible; use trainer.device=cpu or auto")
    rank, world = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    local = int(os.environ.get("LOCAL_RANK", "0"))
    where = torch.device("cuda", local) if use_cuda else torch.device("cpu")
    if use_cuda:
        torch.cuda.set_device(where)
    start = world > 1 and not dist.is_initialized()
    if start:
        dist.init_process_group("nccl" if use_cuda else "gloo", device_id=where if use_cuda else None)
    return Workers(rank, world, where, start)
