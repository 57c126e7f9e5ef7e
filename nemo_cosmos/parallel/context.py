"""Where the token sequence is split, exchanged and gathered.

Tokens are numbered in flattened (frame, row, column) order. Context rank ``c`` holds the ``c``-th contiguous chunk;
with sequence parallelism tensor rank ``t`` holds the ``t``-th part of that chunk. When the number of tokens does not
divide, zeros are appended at the end; attention drops them from keys and values, so that they change nothing.

The network is entered with the whole latent on every rank and left with the whole output on every rank. A loss that is
computed alike on all of them therefore needs no communication: in the backward pass each rank takes its own part of
the gradient of the output, and parameter gradients are partial sums, which are added over context ranks by data
parallelism and over tensor ranks by the finalisation of gradients.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from megatron.core.tensor_parallel.mappings import all_to_all
from torch import Tensor
from torch.distributed import ProcessGroup

from nemo_cosmos.parallel.groups import ParallelGroups


@dataclass(frozen=True)
class SequenceSplit:
    """The part of ``num_tokens`` tokens that this rank holds.

    Attributes:
        blocks: lengths of the parts of the sequence that attend to themselves alone; empty where it is one.
        multiple: what the length with padding is at least a multiple of.
    """

    num_tokens: int
    groups: ParallelGroups
    blocks: tuple[int, ...] = ()
    multiple: int = 1

    @property
    def padded_tokens(self) -> int:
        parts = self.groups.context_size
        if self.groups.splits_sequence_over_tensor:
            parts *= self.groups.tensor_size
        unit = math.lcm(parts, self.multiple)
        return -(-self.num_tokens // unit) * unit

    def own_blocks(self) -> list[tuple[slice, slice]]:
        """(this context rank's tokens, all tokens) of each block that it holds part of; padding is of the last."""
        start, out, first = self.groups.context_rank * self.context_tokens, [], 0
        for number, length in enumerate(self.blocks, 1):
            stop = first + length if number < len(self.blocks) else self.padded_tokens
            own = slice(max(first, start) - start, min(stop, start + self.context_tokens) - start)
            if own.stop > own.start:
                out.append((own, slice(first, first + length)))
            first += length
        return out

    @property
    def context_tokens(self) -> int:
        """Tokens of one context rank, padding included."""
        return self.padded_tokens // self.groups.context_size

    @property
    def local_tokens(self) -> int:
        """Tokens that this rank holds between the matrix products, padding included."""
        if self.groups.splits_sequence_over_tensor:
            return self.context_tokens // self.groups.tensor_size
        return self.context_tokens

    def _chunk(self, x: Tensor, start: int, length: int) -> Tensor:
        if start == 0 and length == self.num_tokens == x.shape[0]:
            return x
        stop = min(start + length, self.num_tokens)
        part = x[min(start, stop) : stop]
        missing = length - part.shape[0]
        return F.pad(part, (0, 0) * (x.dim() - 1) + (0, missing)) if missing else part

    def context_chunk(self, x: Tensor) -> Tensor:
        """(num_tokens, ...) -> (context_tokens, ...): the chunk of this context rank, zero padded."""
        return self._chunk(x, self.groups.context_rank * self.context_tokens, self.context_tokens)

    @property
    def local_start(self) -> int:
        """Number of the first token that this rank holds between the matrix products."""
        start = self.groups.context_rank * self.context_tokens
        if self.groups.splits_sequence_over_tensor:
            start += self.groups.tensor_rank * self.local_tokens
        return start

    def local_chunk(self, x: Tensor) -> Tensor:
        """(num_tokens, ...) -> (local_tokens, ...): what this rank holds between the matrix products, zero padded."""
        return self._chunk(x, self.local_start, self.local_tokens)

    def gather(self, x: Tensor) -> Tensor:
        """(local_tokens, ...) -> (num_tokens, ...) on every rank; the backward pass takes this rank's part."""
        if self.groups.splits_sequence_over_tensor:
            x = _GatherFirstDim.apply(x, self.groups.tensor)
        if self.groups.context is not None:
            x = _GatherFirstDim.apply(x, self.groups.context)
        return x if x.shape[0] == self.num_tokens else x[: self.num_tokens]


def pipeline_rows(num_tokens: int, extra_rows: int, *, context: int, tensor: int, sequence: bool) -> int:
    """The sequence length from which Megatron's schedules get the shape of a hidden state that is passed on.

    They divide it by the context size and, with sequence parallelism, by the tensor size. A hidden state holds a
    rank's tokens, padding included, and ``extra_rows`` more.
    """
    parts = context * (tensor if sequence else 1)
    return (-(-num_tokens // parts) + extra_rows) * parts


class _GatherFirstDim(torch.autograd.Function):
    """All-gather along the first dimension; the gradient is alike on every rank, so backward only cuts it."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, group: ProcessGroup) -> Tensor:
        ctx.group = group
        return _all_gather(x, group)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return grad.chunk(ctx.group.size(), dim=0)[ctx.group.rank()].contiguous(), None


class _GatherSequence(torch.autograd.Function):
    """All-gather along the first dimension for use by other ranks too; backward sums what they made of it."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, group: ProcessGroup) -> Tensor:
        ctx.group = group
        return _all_gather(x, group)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        grad = grad.contiguous()
        out = grad.new_empty((grad.shape[0] // ctx.group.size(), *grad.shape[1:]))
        torch.distributed.reduce_scatter_tensor(out, grad, group=ctx.group)
        return out, None


def _all_gather(x: Tensor, group: ProcessGroup) -> Tensor:
    x = x.contiguous()
    out = x.new_empty((x.shape[0] * group.size(), *x.shape[1:]))
    torch.distributed.all_gather_into_tensor(out, x, group=group)
    return out


def gather_sequence(x: Tensor, group: ProcessGroup) -> Tensor:
    """(s, ...) -> (s·n, ...): every rank's part; the backward pass is a reduce-scatter."""
    return _GatherSequence.apply(x, group)


def sequence_to_heads(x: Tensor, group: ProcessGroup) -> Tensor:
    """(s, B, h, d) -> (s·n, B, h/n, d): exchange a part of the sequence for a part of the heads (Ulysses)."""
    s, b, h, d = x.shape
    n = group.size()
    parts = x.reshape(s, b, n, h // n, d).permute(2, 0, 1, 3, 4).contiguous()
    return all_to_all(group, parts).reshape(n * s, b, h // n, d)


def heads_to_sequence(x: Tensor, group: ProcessGroup) -> Tensor:
    """(s·n, B, h/n, d) -> (s, B, h, d): the inverse of :func:`sequence_to_heads`."""
    total, b, h, d = x.shape
    n = group.size()
    parts = all_to_all(group, x.contiguous()).reshape(n, total // n, b, h, d)
    return parts.permute(1, 2, 0, 3, 4).reshape(total // n, b, n * h, d)
