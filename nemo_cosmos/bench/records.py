"""A folder of a million records: opening it, the epochs of one, three and eight ranks, two thousand steps of reading.

The index of every record is as long as `prepare` writes it; the records of a shard share one payload, so that a
million of them take little disk. At the end as many samples are read from shards that hold each of them: ours in
random order, webdataset's in the order of the files.
"""

from __future__ import annotations

import itertools
import json
import multiprocessing
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch

from nemo_cosmos.data.manifest import index_name, merge_manifest, read_index, write_json
from nemo_cosmos.data.positions import MicroBatches, PositionDataset, PositionSampler
from nemo_cosmos.data.sample import LatentSample, Origin, TokenizerIdentity
from nemo_cosmos.data.shards import ShardDataset, ShardWriter

TOKENIZER = TokenizerIdentity("bench", "0" * 64, 4, 8, 16)
WARM_STEPS = 200


def tiny_sample(number: int) -> LatentSample:
    """A record of a few kilobytes."""
    generator = torch.Generator().manual_seed(number)
    digest = f"{number:064x}"
    return LatentSample(
        key=f"clip-{number:09d}",
        latent=torch.randn(16, 2, 4, 4, generator=generator).bfloat16(),
        text=torch.randn(4, 16, generator=generator),
        caption=f"clip {number}",
        fps=24.0,
        num_frames=5,
        image_size=(32, 32, 32, 32),
        source=f"videos/clip-{number:09d}.mp4",
        origin=Origin(f"clip-{number:09d}", f"videos/clip-{number:09d}.mp4", 10**6 + number, digest, digest),
    )


def write_records(path: Path, *, records: int, shards: int) -> None:
    """A folder of shards whose indices list ``records`` samples, of which each shard holds one."""
    with ShardWriter(path, tokenizer=TOKENIZER, text_encoder="bench", samples_per_shard=1, write_manifest=False) as to:
        for number in range(shards):
            to.write(tiny_sample(number))
    bounds = np.linspace(0, records, shards + 1).astype(int).tolist()
    for number, (first, last) in enumerate(itertools.pairwise(bounds)):
        file = path / index_name(f"shard-0000-{number:06d}.tar")
        index = read_index(file)
        origin = index.origins[0]
        index.keys = [f"clip-{record:09d}" for record in range(first, last)]
        index.tensors, index.records = index.tensors * (last - first), index.records * (last - first)
        index.origins = [origin] * (last - first)
        write_json(file, asdict(index))
    merge_manifest(path)


def resident_bytes(process: int | str = "self") -> int:
    """Memory of a process that is in RAM now."""
    return int(Path(f"/proc/{process}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def open_files(process: int | str = "self") -> int:
    return len(os.listdir(f"/proc/{process}/fd"))


def measure_opening(path: Path) -> tuple[ShardDataset, dict[str, Any]]:
    """What a run does with a folder before its first step."""
    before, began, cpu = resident_bytes(), time.perf_counter(), time.process_time()
    peak_before = peak_bytes()
    dataset = ShardDataset(path)
    opened, cpu = time.perf_counter() - began, time.process_time() - cpu
    digest = dataset.digest
    return dataset, {
        "records": len(dataset),
        "open_seconds": opened,
        "open_cpu_seconds": cpu,
        "digest_seconds": time.perf_counter() - began - opened,
        "resident_growth_bytes": resident_bytes() - before,
        "peak_growth_bytes": peak_bytes() - peak_before,
        "digest": digest,
    }


def peak_bytes() -> int:
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024


def first_epoch(count: int, ranks: int, *, workers: int, micro_batch: int = 50) -> tuple[np.ndarray, int]:
    """How often each record is read at the positions of the first epoch, over all ranks, and positions read twice."""
    seen, positions = np.zeros(count, np.int64), np.zeros(count + 10 * micro_batch * ranks, np.int64)
    dataset = PositionDataset(range(count), seed=1)
    for rank in range(ranks):
        sampler = PositionSampler(
            micro_batch=micro_batch, global_batch=2 * micro_batch * ranks, data_rank=rank, data_size=ranks
        )
        batches = MicroBatches(dataset, np.asarray)
        context = "forkserver" if workers else None
        loader = torch.utils.data.DataLoader(
            batches, batch_size=None, sampler=sampler, num_workers=workers, multiprocessing_context=context
        )
        for batch in loader:
            pairs = batch.numpy() if isinstance(batch, torch.Tensor) else batch
            if pairs[0, 0] >= count:
                break
            positions[pairs[:, 0]] += 1
            inside = pairs[pairs[:, 0] < count]
            np.add.at(seen, inside[:, 1], 1)
    return seen, int((positions > 1).sum())


def read_steps(dataset: ShardDataset, steps: int, workers: int) -> Iterator[dict[str, Any]]:
    """Memory and open files of the run's process and its readers, after a while and at the end."""
    from megatron.core import parallel_state

    from nemo_cosmos.config import DataConfig
    from nemo_cosmos.data.record import DataRecord
    from nemo_cosmos.training.data import CosmosDataModule
    from nemo_cosmos.training.samples import Samples

    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    parallel_state.initialize_model_parallel()
    samples = Samples(dataset, dataset.manifest.latent_shape, DataRecord("", "", len(dataset)))  # type: ignore[arg-type]
    config = DataConfig(micro_batch=1, global_batch=4, num_workers=workers, text_length=8)
    began = time.perf_counter()
    for step, _ in enumerate(CosmosDataModule(samples, config, seed=0).train_dataloader(), 1):
        if step in (min(WARM_STEPS, steps // 2), steps):
            processes = [
                os.getpid(),
                *(child.pid for child in multiprocessing.active_children() if child.pid is not None),
            ]
            yield {
                "step": step,
                "resident_bytes": [resident_bytes(process) for process in processes],
                "open_files": [open_files(process) for process in processes],
                "seconds": time.perf_counter() - began,
            }
        if step == steps:
            break
    torch.distributed.destroy_process_group()


Reader = Callable[[list[str]], Iterator[Mapping[str, bytes]]]
"""(tar files) -> the members of each record by suffix: another library to compare with."""


def compare_reading(path: Path, count: int, peer: Reader) -> dict[str, float]:
    """Samples a second from shards with one record each: ours in random order, the peer's in the files' order."""
    with ShardWriter(path, tokenizer=TOKENIZER, text_encoder="bench", samples_per_shard=500) as writer:
        for number in range(count):
            writer.write(tiny_sample(number))
    dataset = PositionDataset(ShardDataset(path), seed=0)
    began = time.perf_counter()
    for position in range(count):
        dataset[position]
    ours = time.perf_counter() - began
    began = time.perf_counter()
    found = 0
    for sample in peer([str(file) for file in sorted(path.glob("*.tar"))]):
        json.loads(sample["json"])
        safetensors.torch.load(sample["safetensors"])
        found += 1
    theirs = time.perf_counter() - began
    assert found == count
    return {"ours_per_second": count / ours, "webdataset_per_second": count / theirs, "ratio": theirs / ours}


def run(*, records: int, shards: int, steps: int, workers: int, peer: Reader) -> dict[str, Any]:
    """Print and return every figure.

    Args:
        records, shards: size of the folder.
        steps: of reading.
        workers: readers of a process.
        peer: webdataset's reader.
    """
    figures: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "records"
        # In another process, so that the memory that opening takes is seen alone.
        writer = multiprocessing.get_context("spawn").Process(
            target=write_records, args=(path,), kwargs={"records": records, "shards": shards}
        )
        writer.start()
        writer.join()
        dataset, figures["opening"] = measure_opening(path)
        show_opening(figures["opening"], shards)
        figures["epochs"] = []
        for ranks, readers in ((1, 0), (3, 0), (8, 0), (3, workers)):
            seen, twice = first_epoch(records, ranks, workers=readers)
            once = int((seen == 1).sum())
            figures["epochs"].append({"ranks": ranks, "workers": readers, "once": once, "positions_read_twice": twice})
            print(
                f"{ranks} ranks, {readers} workers: {once:,} records once in the first epoch, {twice} positions twice",
                flush=True,
            )
        figures["steps"] = list(read_steps(dataset, steps, workers))
        for record in figures["steps"]:
            print(
                f"step {record['step']}: {', '.join(f'{v / 1e6:.0f}' for v in record['resident_bytes'])} MB resident "
                f"and {', '.join(map(str, record['open_files']))} open files in the run's process and its readers",
                flush=True,
            )
        reading = figures["reading"] = compare_reading(Path(folder) / "single", min(records, 5_000), peer)
        print(
            f"reading: {reading['ours_per_second']:,.0f} samples/s in random order, webdataset in the files' order "
            f"{reading['webdataset_per_second']:,.0f}: {reading['ratio']:.2f} times as fast"
        )
    return figures


def show_opening(opening: dict[str, Any], shards: int) -> None:
    print(
        f"{opening['records']:,} records in {shards:,} shards: opened in "
        f"{opening['open_seconds']:.1f} s ({opening['open_cpu_seconds']:.1f} s of one core), "
        f"digest in {opening['digest_seconds']:.1f} s, "
        f"{opening['resident_growth_bytes'] / 1e6:.0f} MB resident, "
        f"{opening['peak_growth_bytes'] / 1e6:.0f} MB at the most",
        flush=True,
    )
