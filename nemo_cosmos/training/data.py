"""The training samples as NeMo's data module."""

from __future__ import annotations

from functools import partial
from typing import Any

import lightning.pytorch as pl
from megatron.core import parallel_state
from nemo.lightning.pytorch.plugins import MegatronDataSampler
from torch.utils.data import DataLoader

from nemo_cosmos.config import DataConfig
from nemo_cosmos.data.positions import PositionDataset, PositionSampler, SampleSource
from nemo_cosmos.data.sample import collate


class CosmosDataSampler(MegatronDataSampler):
    """Tells NeMo's schedules the batch sizes and the length of hidden states; the loader samples for itself."""

    def transform_dataloader(self, dataloader: DataLoader, consumed_samples: int = 0) -> DataLoader:
        return dataloader


class CosmosDataModule(pl.LightningDataModule):
    """Deterministic, resumable batches of a sample source."""

    def __init__(self, source: SampleSource, config: DataConfig, *, seed: int, sequence_length: int = 1) -> None:
        super().__init__()
        self.source, self.config, self.seed = source, config, seed
        self.data_sampler = CosmosDataSampler(
            seq_len=sequence_length,
            micro_batch_size=config.micro_batch,
            global_batch_size=config.global_batch,
            output_log=False,
        )

    def train_dataloader(self) -> DataLoader:
        """Batches of this rank from the trainer's current step on."""
        config = self.config
        sampler = PositionSampler(
            micro_batch=config.micro_batch,
            global_batch=config.global_batch,
            data_rank=parallel_state.get_data_parallel_rank(),
            data_size=parallel_state.get_data_parallel_world_size(),
            start_step=self.trainer.global_step if self.trainer is not None else 0,
        )
        options: dict[str, Any] = {}
        if config.num_workers:
            # Workers start from a clean server process: forking one with threads of its own can hang.
            options = {"multiprocessing_context": "forkserver", "persistent_workers": True, "prefetch_factor": 4}
        return DataLoader(
            PositionDataset(self.source, seed=self.seed, shuffle=config.shuffle),
            batch_sampler=sampler,
            num_workers=config.num_workers,
            collate_fn=partial(collate, text_length=config.text_length),
            **options,
        )
