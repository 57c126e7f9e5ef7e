"""The training samples as NeMo's data module."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import lightning.pytorch as pl
from megatron.core import parallel_state
from nemo.lightning.megatron_parallel import MegatronStep
from nemo.lightning.pytorch.plugins import MegatronDataSampler
from torch.utils.data import DataLoader

from nemo_cosmos.config import DataConfig
from nemo_cosmos.data.positions import LatentShape, MicroBatches, PositionDataset, PositionSampler
from nemo_cosmos.data.sample import LatentBatch, PackedBatch, collate, collate_packed
from nemo_cosmos.data.view_dropout import DroppingViews, ViewDropout
from nemo_cosmos.data.workers import close_readers, reader_options
from nemo_cosmos.errors import InputError
from nemo_cosmos.training.samples import Samples


class CosmosDataSampler(MegatronDataSampler):
    """Tells NeMo's schedules the batch sizes and the length of hidden states; the loader samples for itself."""

    def __init__(self, rows: Callable[[int], int], config: DataConfig) -> None:
        super().__init__(
            seq_len=rows(0),
            micro_batch_size=config.micro_batch,
            global_batch_size=config.global_batch,
            output_log=False,
        )
        self.rows = rows

    def on_megatron_step_start(self, step: MegatronStep) -> MegatronStep:
        """The length is that of the step's bucket."""
        assert step.step_i is not None
        self.seq_len = self.rows(step.step_i)
        return super().on_megatron_step_start(step)

    def transform_dataloader(self, dataloader: BatchLoader, consumed_samples: int = 0) -> BatchLoader:
        return dataloader


class BatchLoader:
    """Batches of a DataLoader, encoded here where it gives raw clips; raises the mistakes that its workers met.

    Latents and texts have the types that they are stored in; ``CosmosModule.data_step`` converts them on the device.
    Every rank of a sample encodes it for itself: the same weights on the same frames give the same latents.
    """

    def __init__(self, loader: DataLoader[Any], encode: Callable[[Any], LatentBatch | PackedBatch] | None) -> None:
        self.loader, self.encode = loader, encode

    def __iter__(self) -> Iterator[LatentBatch | PackedBatch]:
        for item in self.loader:
            if isinstance(item, InputError):
                raise item
            yield item if self.encode is None else self.encode(item)


class CosmosDataModule(pl.LightningDataModule):
    """Deterministic, resumable batches of the training samples."""

    def __init__(
        self, samples: Samples, config: DataConfig, *, seed: int, rows: Callable[[LatentShape], int] = lambda shape: 1
    ) -> None:
        """``rows`` gives the length from which Megatron's schedules take the shape of a hidden state."""
        super().__init__()
        self.samples, self.config, self.seed = samples, config, seed
        self.positions: PositionDataset[Any] = PositionDataset(
            samples.source,
            seed=seed,
            shuffle=config.shuffle,
            buckets=[] if config.packing else [bucket.samples for bucket in samples.buckets],
            global_batch=config.global_batch,
        )
        self.dropout = ViewDropout(config.view_dropout, seed, config.global_batch) if config.view_dropout else None
        self.data_sampler = CosmosDataSampler(lambda step: rows(self.shapes(step)[0]), config)
        self.loader: DataLoader[Any] | None = None

    def shapes(self, step: int) -> list[LatentShape]:
        """The shapes of a step's latents, over all ranks."""
        batch, samples, dropout = self.config.global_batch, self.samples, self.dropout
        numbers = [0] * batch
        if samples.buckets:
            numbers = [self.positions.sample_index(position) for position in range(step * batch, (step + 1) * batch)]
        if dropout is None:
            return [samples.shape(number) for number in numbers]
        return [dropout.shape(step, samples.shape(number), samples.num_views(number)) for number in numbers]

    def train_dataloader(self) -> BatchLoader:
        """Batches of this rank from the trainer's current step on."""
        config, encoder = self.config, self.samples.encoder
        sampler = PositionSampler(
            micro_batch=config.micro_batch,
            global_batch=config.global_batch,
            data_rank=parallel_state.get_data_parallel_rank(),
            data_size=parallel_state.get_data_parallel_world_size(),
            start_step=self.trainer.global_step if self.trainer is not None else 0,
        )
        gather: Callable[..., Any] = partial(
            collate_packed if config.packing else collate, text_length=config.text_length, as_stored=True
        )
        if self.dropout is not None:
            gather = DroppingViews(self.dropout, gather)
        batches: MicroBatches[Any] = MicroBatches(self.positions, gather if encoder is None else list)
        options = reader_options(config.num_workers)
        if options:
            options["prefetch_factor"] = 4
        self.loader = DataLoader(batches, batch_size=None, sampler=sampler, **options)
        return BatchLoader(self.loader, None if encoder is None else partial(encoder.encode, gather=gather))

    def close(self) -> None:
        """End the processes that read."""
        close_readers(self.loader)
