"""Distributed checkpoints of a run, read and written by one process without process groups.

A save holds ``module.net.*`` (the network under this package's names), ``module.logvar.*``, the average of everything
trained under ``ema.`` and the optimizer's state. Tensors are whole in its index, whatever layout wrote them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor
from torch.distributed.checkpoint import FileSystemWriter
from torch.distributed.checkpoint.metadata import TensorStorageMetadata
from torch.distributed.checkpoint.state_dict_saver import save

from nemo_cosmos.checkpoint.files import Weights
from nemo_cosmos.checkpoint.sharded import whole_tensor
from nemo_cosmos.checkpoint.store import TENSORS, CheckpointReader, HashingFileSystem, write_format
from nemo_cosmos.checksums import MANIFEST, write_manifest

NETWORK = "module.net."
LOGVAR = "module.logvar."
EMA = "ema."


class DistributedCheckpoint(Mapping[str, Tensor]):
    """The tensors of one save, each put together when it is asked for.

    Args:
        folder: ``iter_…`` of a run.

    Raises:
        InputError: there is no distributed checkpoint, or a file of it is broken.
    """

    def __init__(self, folder: Path) -> None:
        self._reader = CheckpointReader(folder)
        self.folder = self._reader.folder
        self._tensors: dict[str, TensorStorageMetadata] = {
            name: value
            for name, value in self._reader.index.state_dict_metadata.items()
            if isinstance(value, TensorStorageMetadata)
        }

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)

    def shape_of(self, name: str) -> tuple[int, ...]:
        """The shape of a tensor, without reading it."""
        return tuple(self._tensors[name].size)

    def dtype_of(self, name: str) -> torch.dtype:
        """The dtype of a tensor, without reading it."""
        return self._tensors[name].properties.dtype

    def __getitem__(self, name: str) -> Tensor:
        return whole_tensor(self._reader, name, self._tensors[name])

    def key(self, ours: str, weights: Weights, *, prefix: str = NETWORK) -> str:
        """Where a tensor is kept: the average has what was trained; the rest never changed."""
        average = f"{EMA}{prefix}{ours}"
        return average if weights == "ema" and average in self._tensors else f"{prefix}{ours}"

    @property
    def has_ema(self) -> bool:
        return any(name.startswith(EMA) for name in self._tensors)


def write_distributed(folder: Path, network: Mapping[str, Tensor], logvar: Mapping[str, Tensor]) -> None:
    """Write the network (this package's names) and the log-variance head as a checkpoint of Megatron's format.

    It holds no optimizer state: a run starts from it through ``model.init_from``.
    """
    state = {f"{NETWORK}{name}": tensor.contiguous() for name, tensor in network.items()}
    state |= {f"{LOGVAR}{name}": tensor.contiguous() for name, tensor in logvar.items()}
    target = folder / TENSORS
    target.mkdir(parents=True)
    writer = FileSystemWriter(target, single_file_per_rank=True)
    writer.fs = files = HashingFileSystem()
    save(state, storage_writer=writer, no_dist=True)
    write_manifest(target / MANIFEST, {**files.checksums, **write_format(target, {})})
