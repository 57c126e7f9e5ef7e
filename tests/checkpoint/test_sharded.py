"""Flat ranges of tensors as boxes, and saves that every rank writes in part."""

from __future__ import annotations

import random
import threading
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.distributed.checkpoint import FileSystemWriter
from torch.distributed.checkpoint.state_dict_saver import save

from nemo_cosmos.checkpoint.distributed import DistributedCheckpoint
from nemo_cosmos.checkpoint.sharded import TensorPart, boxes, load_parts, save_parts
from nemo_cosmos.checkpoint.store import CheckpointReader, read_common, write_format
from nemo_cosmos.errors import InputError
from nemo_cosmos.training.run import train
from tests.parallel.processes import run_processes
from tests.parallel.runs import exported, losses, small_run, worst_difference


@pytest.mark.parametrize("seed", range(60))
def test_boxes_hold_a_flat_range_in_order(seed: int) -> None:
    draw = random.Random(seed)
    shape = tuple(draw.randint(1, 5) for _ in range(draw.randint(0, 4)))
    whole = torch.arange(torch.Size(shape).numel()).view(shape)
    start = draw.randint(0, whole.numel())
    stop = draw.randint(start, whole.numel())
    found = list(boxes(shape, start, stop))
    values = [whole[tuple(slice(o, o + s) for o, s in zip(*box, strict=True))].flatten() for box in found]
    assert torch.equal(torch.cat([*values, whole.new_empty(0)]), whole.flatten()[start:stop])
    assert len(found) <= max(1, 2 * len(shape) - 1)


def whole_tensors() -> dict[str, torch.Tensor]:
    """The same in every process."""
    generator = torch.Generator().manual_seed(0)
    shapes = {"a": (6, 10), "b": (7,), "c": (), "d": (4, 3, 2)}
    out = {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    return {**out, "b": out["b"].bfloat16()}


def cut(name: str, tensor: torch.Tensor, rank: int, ranks: int) -> TensorPart:
    """A rank's flat range of a tensor; the ranges of all ranks are uneven and cover it."""
    size = tensor.numel()
    start, stop = size * rank // ranks, size * (rank + 1) // ranks
    return TensorPart(
        name, tensor.flatten()[start:stop].clone(), tensor.shape, (0,) * tensor.dim(), tensor.shape, start
    )


def columns(name: str, tensor: torch.Tensor, rank: int, ranks: int) -> TensorPart:
    """Half of the columns, as a tensor-parallel shard."""
    shard = tensor.chunk(ranks, dim=-1)[rank].contiguous()
    offset = (*[0] * (tensor.dim() - 1), rank * shard.shape[-1])
    return TensorPart(name, shard, tensor.shape, offset, shard.shape)


def write_and_read(folder: Path) -> None:
    torch.distributed.init_process_group("gloo")
    rank, ranks, whole = torch.distributed.get_rank(), torch.distributed.get_world_size(), whole_tensors()
    save_parts(folder, [cut(name, tensor, rank, ranks) for name, tensor in whole.items()], {"step": 3})
    torch.distributed.barrier()
    assert read_common(folder) == {"step": 3}
    reader = CheckpointReader(folder)
    for cut_again in (cut, columns):
        for name in ("a", "d"):
            wanted = cut_again(name, whole[name], (rank + 1) % ranks, ranks)
            # NaN never equals what was written.
            empty = replace(wanted, data=torch.full_like(wanted.data, torch.nan))
            load_parts(reader, [empty])
            assert torch.equal(empty.data, wanted.data)
    for key, shape, message in (("e", (2,), "e is missing"), ("b", (8,), r"b has shape \[7\], the network has \[8\]")):
        with pytest.raises(InputError, match=message):
            load_parts(reader, [TensorPart(key, torch.empty(shape), shape, (0,), shape)])


def test_ranks_write_and_read_their_own_parts(tmp_path: Path) -> None:
    run_processes(2, write_and_read, tmp_path / "save", log=tmp_path / "logs")
    found, whole = DistributedCheckpoint(tmp_path / "save"), whole_tensors()
    assert found.keys() == whole.keys()
    for name, tensor in whole.items():
        assert torch.equal(found[name], tensor)
        assert found.dtype_of(name) == tensor.dtype


def measure_memory(folder: Path) -> None:
    """192 MB on each rank, of which no copy may be made."""
    torch.distributed.init_process_group("gloo")
    rank = torch.distributed.get_rank()
    parts = [TensorPart(f"t{i}", torch.randn(2**20), (2, 2**20), (rank, 0), (1, 2**20)) for i in range(48)]
    with AnonymousMemory() as grown:
        save_parts(folder, parts, {})
        load_parts(CheckpointReader(folder), parts)
    assert grown.peak < 48 * 2**20, f"{grown.peak / 2**20:.0f} MiB more than before"


class AnonymousMemory:
    """The most that this process held over what it held before, without mapped files; looked at all the time."""

    def __enter__(self) -> AnonymousMemory:
        self.before, self.peak, self.done = self.now(), 0, threading.Event()
        self.thread = threading.Thread(target=self.watch)
        self.thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.done.set()
        self.thread.join()

    def watch(self) -> None:
        while not self.done.wait(0.002):
            self.peak = max(self.peak, self.now() - self.before)

    @staticmethod
    def now() -> int:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) * 1024


def test_no_copy_of_the_state_is_made(tmp_path: Path) -> None:
    run_processes(2, measure_memory, tmp_path / "save", log=tmp_path / "logs")


def test_saves_of_earlier_versions_resume(shards: Path, tmp_path: Path) -> None:
    """They hold whole tensors, fp32 main parameters of fp32 weights too, and no count of Adam's steps."""
    run, copy = tmp_path / "run", tmp_path / "earlier"
    for steps in (3, 5):
        run_processes(1, train, small_run(shards, run, f"trainer.max_steps={steps}"), log=run / "logs")
        if steps == 3:
            rewrite(run, copy)
    run_processes(2, train, small_run(shards, copy, "parallel.tensor=2"), log=copy / "logs")
    assert losses(copy) == pytest.approx(losses(run), rel=1e-6)
    assert worst_difference(exported(copy, 5, "ema"), exported(run, 5, "ema")) < 1e-5


def rewrite(run: Path, copy: Path) -> None:
    folder = run / "checkpoints" / "iter_000000003"
    target = copy / "checkpoints" / folder.name / "weights"
    target.mkdir(parents=True)
    found = DistributedCheckpoint(folder)
    state = {name: found[name] for name in found}
    state |= {f"optimizer.state.param.{n}": t for n, t in state.items() if f"optimizer.state.exp_avg.{n}" in state}
    save(state, storage_writer=FileSystemWriter(target, single_file_per_rank=True), no_dist=True)
    common = read_common(found.folder)
    write_format(target, {k: v for k, v in common.items() if k not in ("adam_steps", "buffers")})
    (copy / "checkpoints" / "latest_checkpoint.txt").write_text("iter_000000003.pt\n")
    (copy / "metrics.jsonl").write_text((run / "metrics.jsonl").read_text())
