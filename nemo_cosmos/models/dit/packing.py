"""Several samples in one sequence: what each brings, and where its tokens and its text lie.

A token attends to the tokens of its own sample and to its own sample's text, and is modulated by its own sample's
times, so that every sample has the output that it has alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from nemo_cosmos.models.dit.config import TokenGrid
from nemo_cosmos.parallel.context import SequenceSplit
from nemo_cosmos.parallel.groups import ParallelGroups

ROUNDED_TO = 512
"""Tokens that the length of a packed sequence is a multiple of on GPUs, so that few lengths are compiled for."""


@dataclass(frozen=True)
class Arguments:
    """What the network is called with; see :meth:`CosmosDiT.forward`. In a pack each has a batch of one."""

    x: Tensor
    timesteps: Tensor
    text: Tensor
    fps: Tensor | None = None
    padding_mask: Tensor | None = None
    condition_mask: Tensor | None = None
    plucker: Tensor | None = None
    view_ids: Tensor | None = None
    frame_repeat: Tensor | None = None

    @property
    def num_times(self) -> int:
        """Times of a sample: 1, or its latent frames."""
        return self.timesteps.shape[1] if self.timesteps.dim() > 1 else 1


def joined(parts: Sequence[Tensor]) -> Tensor:
    """The parts along their first dimension."""
    return parts[0] if len(parts) == 1 else torch.cat(list(parts))


def sequence_split(grids: Sequence[TokenGrid], groups: ParallelGroups, device: torch.device) -> SequenceSplit:
    """How the tokens of samples in one sequence are split over ranks."""
    lengths = tuple(grid.num_tokens for grid in grids)
    if len(lengths) == 1:
        return SequenceSplit(lengths[0], groups)
    multiple = ROUNDED_TO if device.type == "cuda" else 1
    return SequenceSplit(sum(lengths), groups, lengths, multiple)


def time_index(samples: Sequence[Arguments], grids: Sequence[TokenGrid]) -> Tensor:
    """(tokens,) row of the time embeddings, one sample's after another's, of each token."""
    rows, first = [], 0
    for sample, grid in zip(samples, grids, strict=True):
        if sample.num_times > 1:
            frames = torch.arange(grid.frames, device=sample.text.device).repeat_interleave(grid.rows * grid.columns)
        else:
            frames = torch.zeros(grid.num_tokens, dtype=torch.int64, device=sample.text.device)
        rows.append(first + frames)
        first += sample.num_times
    return joined(rows)


def even_times(samples: Sequence[Arguments], grids: Sequence[TokenGrid], split: SequenceSplit) -> slice | None:
    """Rows of the time embeddings of this rank's tokens, where each has equally many tokens; None otherwise."""
    lengths = {grid.num_tokens // sample.num_times for sample, grid in zip(samples, grids, strict=True)}
    if len(lengths) > 1 or split.padded_tokens != split.num_tokens:
        return None
    (length,) = lengths
    first, last = split.local_start, split.local_start + split.local_tokens
    return None if first % length or last % length else slice(first // length, last // length)


def text_blocks(
    samples: Sequence[Arguments], grids: Sequence[TokenGrid], num_views: Sequence[int], split: SequenceSplit
) -> list[tuple[slice, slice]] | None:
    """(tokens of this context rank, text) of each sample and view; None where all tokens attend to all text."""
    if sum(num_views) == 1:
        return None
    start = split.groups.context_rank * split.context_tokens
    stop = min(start + split.context_tokens, split.num_tokens)
    blocks, token, word = [], 0, 0
    for sample, grid, views in zip(samples, grids, num_views, strict=True):
        tokens, words = grid.num_tokens // views, sample.text.shape[1] // views
        for _ in range(views):
            cut = slice(max(token, start) - start, max(min(token + tokens, stop), start) - start)
            blocks.append((cut, slice(word, word + words)))
            token, word = token + tokens, word + words
    return blocks
