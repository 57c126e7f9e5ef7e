"""The processes of one generation: one device each, all working on the same video."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch

from nemo_cosmos.errors import InputError

Result = TypeVar("Result")


@dataclass(frozen=True)
class Ranks:
    """This process's place among those that share a video by context parallelism."""

    rank: int = 0
    world_size: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    @property
    def is_first(self) -> bool:
        return self.rank == 0

    @property
    def context_group(self) -> torch.distributed.ProcessGroup | None:
        """The group that a sample's tokens are split over, None for one process."""
        return None if self.world_size == 1 else torch.distributed.group.WORLD

    def from_first(self, produce: Callable[[], Result]) -> Result:
        """Runs ``produce`` on the first rank and gives its result to all.

        Tensors must be on the CPU. An exception on the first rank is raised on every rank, so that none waits forever.
        """
        if self.world_size == 1:
            return produce()
        box: list[Any] = [None, None]
        if self.is_first:
            try:
                box[0] = produce()
            except Exception as error:
                # The others learn of every failure, whatever it is; the original is raised again right here.
                torch.distributed.broadcast_object_list([None, _portable(error)], src=0, device=self.device)
                raise
        torch.distributed.broadcast_object_list(box, src=0, device=self.device)
        if box[1] is not None:
            raise box[1]
        return box[0]


def start_ranks(num_gpus: int | None = None) -> Ranks:
    """Joins the processes that torchrun started, if any, into one group.

    Args:
        num_gpus: how many processes the user expects; None takes what there is.

    Raises:
        InputError: the number of processes differs from ``num_gpus``.
    """
    world_size = int(os.environ.get("WORLD_SIZE", "1"))
    if num_gpus is not None and num_gpus != world_size:
        raise InputError(
            f"num_gpus={num_gpus}, but the number of processes is {world_size}: "
            f"start with torchrun --nproc_per_node={num_gpus}"
        )
    has_gpu = torch.cuda.is_available()
    local_rank = int(os.environ.get("LOCAL_RANK", "0"))
    device = torch.device("cuda", local_rank) if has_gpu else torch.device("cpu")
    if has_gpu:
        torch.cuda.set_device(device)
    if world_size == 1:
        return Ranks(device=device)
    if not torch.distributed.is_initialized():
        torch.distributed.init_process_group("nccl" if has_gpu else "gloo")
    return Ranks(torch.distributed.get_rank(), world_size, device)


def stop_ranks(ranks: Ranks) -> None:
    """Leaves the group that :func:`start_ranks` made."""
    if ranks.world_size > 1 and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def _portable(error: Exception) -> Exception:
    """The error as another process can raise it: users' mistakes keep their type, others become RuntimeError."""
    if isinstance(error, InputError):
        return InputError(str(error))
    return RuntimeError(f"rank 0 failed: {type(error).__name__}: {error}")
