"""One process of a group of `layouts.py`: works through its runs and writes what it measured."""

from __future__ import annotations

import argparse
import json
import os
import time
from collections import defaultdict
from pathlib import Path
from typing import Any


class Traffic:
    """Bytes that this rank hands to collectives, by (operation, group); installed before Megatron is imported."""

    OPERATIONS = ("all_reduce", "all_gather_into_tensor", "_all_gather_base", "reduce_scatter_tensor",
                  "_reduce_scatter_base", "all_to_all_single", "broadcast", "isend", "send", "all_gather",
                  "reduce_scatter", "all_to_all")  # fmt: skip

    def __init__(self) -> None:
        self.bytes: dict[str, float] = defaultdict(float)
        self.calls: dict[str, int] = defaultdict(int)
        self.on = False

    def install(self) -> None:
        import torch.distributed as dist

        for name in self.OPERATIONS:
            if hasattr(dist, name):
                setattr(dist, name, self.counted(name, getattr(dist, name)))
        batch = dist.batch_isend_irecv

        def batch_isend_irecv(operations: list[Any]) -> Any:
            for operation in operations:
                if operation.op.__name__ == "isend":
                    self.add("isend", operation.tensor, operation.group, 1.0)
            was, self.on = self.on, False
            try:
                return batch(operations)
            finally:
                self.on = was

        setattr(dist, "batch_isend_irecv", batch_isend_irecv)  # noqa: B010
        # P2POp compares its first argument with the original functions.
        operation = dist.P2POp

        def with_original(op: Any, *args: Any, **kwargs: Any) -> Any:
            return operation(getattr(op, "__wrapped__", op), *args, **kwargs)

        setattr(dist, "P2POp", with_original)  # noqa: B010

    def counted(self, name: str, function: Any) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            if not self.on:
                return function(*args, **kwargs)
            self.on = False  # some of these call each other
            try:
                return function(*args, **kwargs)
            finally:
                self.on = True
                self.count(name, args, kwargs)

        call.__name__ = name
        call.__wrapped__ = function  # type: ignore[attr-defined]
        return call

    def count(self, name: str, args: tuple, kwargs: dict[str, Any]) -> None:
        import torch
        import torch.distributed as dist

        group: Any = kwargs.get("group")
        if group is None:
            group = next((a for a in args if isinstance(a, dist.ProcessGroup)), dist.group.WORLD)
        tensors = [a for a in [*args, *kwargs.values()] if isinstance(a, torch.Tensor)]
        if not tensors or group.size() == 1:
            return
        # What one rank sends in a ring (or directly): all-reduce passes the tensor twice, the others once.
        share = (group.size() - 1) / group.size()
        whole = max(tensors, key=lambda t: t.numel())
        factor = {"all_reduce": 2 * share, "broadcast": share, "isend": 1.0, "send": 1.0}.get(name, share)
        self.add(name.removeprefix("_").removesuffix("_base").removesuffix("_tensor"), whole, group, factor)

    def add(self, name: str, tensor: Any, group: Any, factor: float) -> None:
        if self.on:
            key = f"{name} {self.group_name(group)}"
            self.bytes[key] += tensor.numel() * tensor.element_size() * factor
            self.calls[key] += 1

    @staticmethod
    def group_name(group: Any) -> str:
        from megatron.core import parallel_state as state
        from torch.distributed import get_process_group_ranks

        ranks = None if group is None else get_process_group_ranks(group)
        for name, get in (
            ("tp", lambda: state.get_tensor_model_parallel_group()),
            ("cp", lambda: state.get_context_parallel_group()),
            ("pp", lambda: state.get_pipeline_model_parallel_group()),
            ("dp", lambda: state.get_data_parallel_group(with_context_parallel=True)),
        ):
            known = get()
            # With one axis split, the context and the data+context group have the same ranks.
            if ranks == get_process_group_ranks(known):
                return name
        return "other"


def work(task_file: Path, first: int) -> None:
    """The runs of a group from number ``first`` on."""
    tasks = json.loads(task_file.read_text())
    out = task_file.parent
    rank = int(os.environ["RANK"])
    traffic = Traffic()
    traffic.install()
    log = (out / f"rank{rank}.jsonl").open("a")

    def write(record: dict[str, Any]) -> None:
        log.write(json.dumps(record) + "\n")
        log.flush()

    write({"event": "alive"})
    import torch

    on_cpu = not torch.cuda.is_available()
    if not on_cpu:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    import gc
    import warnings

    import lightning.pytorch as pl

    from nemo_cosmos.config import TrainConfig, load_config
    from nemo_cosmos.training.run import train

    warnings.filterwarnings("ignore")
    from megatron.core import num_microbatches_calculator, parallel_state

    from nemo_cosmos.training.saving import CheckpointCallback

    class Watch(pl.Callback):
        def __init__(self, skip: int) -> None:
            self.skip = skip
            self.seconds: list[float] = []
            self.resident = self.start = 0
            self.peak = 0

        def on_train_start(self, trainer: Any, module: Any) -> None:
            self.resident = torch.cuda.memory_allocated()

        def on_train_batch_start(self, trainer: Any, *args: Any, **kwargs: Any) -> None:
            torch.cuda.synchronize()
            if trainer.global_step == self.skip:
                torch.cuda.reset_peak_memory_stats()
                traffic.bytes.clear()
                traffic.calls.clear()
            traffic.on = trainer.global_step >= self.skip
            self.begin = time.perf_counter()

        def on_train_batch_end(self, trainer: Any, *args: Any, **kwargs: Any) -> None:
            torch.cuda.synchronize()
            traffic.on = False
            if trainer.global_step > self.skip:
                self.seconds.append(time.perf_counter() - self.begin)
            self.peak = torch.cuda.max_memory_allocated()

    # What is compared and timed are steps.
    CheckpointCallback.save = lambda self, trainer: None  # type: ignore[method-assign]
    for task in tasks[first:]:
        write({"event": "start", "number": task["number"]})
        # NeMo sets its groups up only together with the default one, so every run makes all of them anew.
        os.environ["MASTER_PORT"] = str(task["port"])
        watch = Watch(skip=1 if task["smoke"] or task["kind"] == "exact" else 2)
        overrides = task["settings"]
        begin = time.perf_counter()
        left_over = torch.cuda.memory_allocated()
        train(load_config(TrainConfig, overrides), callbacks=[watch])
        steps = max(1, len(watch.seconds))
        write(
            {
                "event": "end", "number": task["number"], "seconds": watch.seconds, "resident_bytes": watch.resident,
                "peak_bytes": watch.peak, "left_over_bytes": left_over,
                "setup_and_run_seconds": time.perf_counter() - begin,
                "sent_bytes_per_step": {key: value / steps for key, value in traffic.bytes.items()},
                "calls_per_step": {key: value / steps for key, value in traffic.calls.items()},
            }
        )  # fmt: skip
        gc.collect()
        parallel_state.destroy_model_parallel()
        num_microbatches_calculator.destroy_num_microbatches_calculator()
        gc.collect()
        if not on_cpu:
            torch.cuda.empty_cache()
        torch.distributed.barrier()
        torch.distributed.destroy_process_group()
    write({"event": "done"})
    log.close()
    # NCCL's teardown can wait for ranks that are gone.
    os._exit(0)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tasks", type=Path, help="tasks.json of the group")
    parser.add_argument("first", type=int, help="number of the first run")
    arguments = parser.parse_args()
    work(arguments.tasks, arguments.first)
