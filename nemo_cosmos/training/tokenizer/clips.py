"""The clips of a tokenizer run: those to train on, to validate with, and to take latent statistics from."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from nemo_cosmos.errors import InputError
from nemo_cosmos.models.tokenizer import TokenizerConfig
from nemo_cosmos.training.tokenizer.config import TokenizerTrainConfig
from nemo_cosmos.training.tokenizer.data import COUNTS, CenterClips, ClipDataset, resolve_source, share_counts
from nemo_cosmos.training.tokenizer.distributed import Workers


def open_clips(
    config: TokenizerTrainConfig, network: TokenizerConfig, workers: Workers
) -> tuple[ClipDataset, Sequence[Tensor], Sequence[Tensor]]:
    """Clips to train on, for validation, and, in the first process alone, for the statistics; collective.

    Raises:
        InputError: none of them is long enough, or one cannot be read.
    """
    is_main = workers.is_main
    source = resolve_source(config.data.train, config.data)
    held_out = None if config.data.val is None else resolve_source(config.data.val, config.data)
    COUNTS.load(Path(config.output_dir))
    share_counts([*source.files, *(held_out.files if held_out is not None else ())], workers)
    dataset = ClipDataset(source, config.data, config.seed, progress=is_main)
    clips: Sequence[Tensor] = []
    if held_out is not None:
        try:
            clips = CenterClips(held_out, config.data, config.validation.max_clips, progress=is_main)
        except InputError as error:
            raise InputError(f"data.val={config.data.val}: {error}") from error
    elif config.validation.lpips_weights is not None or config.validation.fvd_network is not None:
        raise InputError("validation.lpips_weights and validation.fvd_network need data.val")
    statistics: Sequence[Tensor] = []
    if config.checkpoint.statistics_clips > 0 and not network.discrete and is_main:
        frames = network.chunk_frames
        chunk = dataclasses.replace(config.data, num_frames=frames)
        try:
            statistics = CenterClips(source, chunk, config.checkpoint.statistics_clips)
        except InputError as error:
            raise InputError(
                f"the latent statistics need training videos of {frames} frames (chunk_frames): there are none; "
                f"set model.overrides.chunk_frames={config.data.num_frames} or checkpoint.statistics_clips=0"
            ) from error
    return dataset, clips, statistics
