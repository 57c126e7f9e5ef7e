"""The process groups that a network is split over."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from megatron.core import parallel_state
from torch.distributed import ProcessGroup


@dataclass(frozen=True)
class ParallelGroups:
    """Tensor, context and pipeline groups of this process; ``None`` where a dimension is not split.

    ``sequence`` is Megatron's sequence parallelism: outside the attention and MLP matrices each tensor rank holds
    its own part of the tokens.
    """

    tensor: ProcessGroup | None = None
    context: ProcessGroup | None = None
    pipeline: ProcessGroup | None = None
    sequence: bool = False

    @classmethod
    def current(cls, *, sequence: bool = False) -> ParallelGroups:
        """The groups of ``megatron.core.parallel_state``, or one process where it is not initialised."""
        if not (torch.distributed.is_initialized() and parallel_state.model_parallel_is_initialized()):
            return cls()

        def unless_single(group: ProcessGroup) -> ProcessGroup | None:
            return group if group.size() > 1 else None

        return cls(
            tensor=unless_single(parallel_state.get_tensor_model_parallel_group()),
            context=unless_single(parallel_state.get_context_parallel_group()),
            pipeline=unless_single(parallel_state.get_pipeline_model_parallel_group()),
            sequence=sequence,
        )

    @property
    def tensor_size(self) -> int:
        return self.tensor.size() if self.tensor is not None else 1

    @property
    def tensor_rank(self) -> int:
        return self.tensor.rank() if self.tensor is not None else 0

    @property
    def context_size(self) -> int:
        return self.context.size() if self.context is not None else 1

    @property
    def context_rank(self) -> int:
        return self.context.rank() if self.context is not None else 0

    @property
    def pipeline_size(self) -> int:
        return self.pipeline.size() if self.pipeline is not None else 1

    @property
    def pipeline_rank(self) -> int:
        return self.pipeline.rank() if self.pipeline is not None else 0

    @property
    def splits_sequence_over_tensor(self) -> bool:
        """Whether tokens are split over the tensor group between the matrix products."""
        return self.sequence and self.tensor_size > 1
