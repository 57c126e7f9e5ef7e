"""Trains twice as a notebook would, once into an error, and says what is not as it was before: a line each."""

from __future__ import annotations

import asyncio
import gc
import logging
import multiprocessing
import os
import random
import signal
import sys
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

import nemo_cosmos as nc
from tests.training.shards import write_shards

ON_IMPORT = ("torch.compile", "torch.manual_seed")
"""What Lightning and PyTorch's own compiler wrap when they are imported, for everybody who imports them."""
CHANGED_BY_RUNS = (torch, torch.cuda, torch.cuda.nvtx, torch.Tensor, torch.nn.Module, torch.nn.functional)
CHANGED_BY_RUNS += (torch.distributed, torch.multiprocessing, torch.backends.cudnn, torch.utils.deterministic)
"""Modules and classes whose attributes must be the same objects afterwards."""


def snapshot() -> dict[str, Any]:
    """Everything of the process that a run could leave behind, by name."""
    found: dict[str, Any] = {
        **{f"environment: {name}": value for name, value in os.environ.items()},
        "working directory": os.getcwd(),
        "arguments": list(sys.argv),
        "streams": (sys.stdin, sys.stdout, sys.stderr),
        "hooks": (sys.excepthook, sys.unraisablehook, sys.displayhook, threading.excepthook),
        "warnings": (list(warnings.filters), warnings.showwarning),
        "log records": (logging.getLogRecordFactory(), logging.getLoggerClass(), logging.root.manager.disable),
        "signals": [signal.getsignal(number) for number in sorted(signal.valid_signals())],
        "generators": (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()),
        "garbage": (gc.isenabled(), gc.get_threshold(), gc.get_freeze_count()),
        "processes": (multiprocessing.get_start_method(allow_none=True), multiprocessing.active_children()),
        "threads": {thread.name for thread in threading.enumerate()},
        "event loop": type(asyncio.get_event_loop_policy()),
        "numpy": np.geterr(),
        "groups": torch.distributed.is_initialized(),
        "mask": _umask(),
        **torch_settings(),
        **{f"modules: {name}": module for name, module in sys.modules.items()},
        **dict(loggers()),
    }
    for owner in CHANGED_BY_RUNS:
        found |= {
            f"{owner.__name__}.{name}": value for name, value in vars(owner).items() if name != "__annotations__"
        }
    return found


def torch_settings() -> dict[str, Any]:
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    return {
        "torch dtype": torch.get_default_dtype(),
        "torch device": torch.get_default_device(),
        "torch threads": (torch.get_num_threads(), torch.get_num_interop_threads()),
        "torch gradients": (torch.is_grad_enabled(), torch.is_inference_mode_enabled(), torch.is_anomaly_enabled()),
        "torch determinism": (
            torch.are_deterministic_algorithms_enabled(),
            torch.is_deterministic_algorithms_warn_only_enabled(),
            torch.utils.deterministic.fill_uninitialized_memory,
        ),
        "torch matmul": (torch.get_float32_matmul_precision(), matmul.allow_tf32),
        "cudnn": (cudnn.enabled, cudnn.benchmark, cudnn.deterministic, cudnn.allow_tf32),
        "attention": (torch.backends.cuda.flash_sdp_enabled(), torch.backends.cuda.cudnn_sdp_enabled()),
        "autocast": (torch.is_autocast_enabled("cpu"), torch.is_autocast_enabled("cuda")),
        "sharing": torch.multiprocessing.get_sharing_strategy(),
        "type of a tensor": torch.zeros(1).type(),
    }


def loggers() -> Iterator[tuple[str, Any]]:
    names = [name for name, found in logging.root.manager.loggerDict.items() if isinstance(found, logging.Logger)]
    for logger in (logging.root, *map(logging.getLogger, names)):
        state = logger.level, list(logger.handlers), list(logger.filters), logger.propagate, logger.disabled
        yield f"logger {logger.name}", state


def _umask() -> int:
    mask = os.umask(0o022)
    os.umask(mask)
    return mask


def differences(before: dict[str, Any], when: str) -> Iterator[str]:
    gc.collect()
    after = snapshot()
    for name, value in before.items():
        if name not in after:
            yield f"{when}: {name} is gone"
        elif after[name] is not value and after[name] != value and name not in ON_IMPORT:
            yield f"{when}: {name} is {after[name]!r:.300}, it was {value!r:.300}"
    for name in after.keys() - before.keys():
        if name.startswith("environment: "):
            yield f"{when}: {name} is new"
        if name.startswith("modules: ") and (after[name] is None or name.startswith("modules: nemo.collections.llm")):
            yield f"{when}: {name} stands in for a module"
    for tensor in [kept for kept in gc.get_objects() if type(kept) is torch.Tensor]:
        if "cuda" in tensor.type():
            yield f"{when}: a tensor of the run reports {tensor.type()}"


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


def train(folder: Path, shards: Path, **overrides: Any) -> None:
    network = {
        "num_layers": 1, "hidden_size": 32, "num_attention_heads": 2, "text_width": 16, "adaln_lora_dim": 8,
        "max_frames": 16, "max_height": 32, "max_width": 32,
    }  # fmt: skip
    settings = {
        "model.preset": "tiny-video2world", "model.init_from": None, "model.overrides": network, "data.path": shards,
        "data.micro_batch": 1, "data.global_batch": 1, "data.num_workers": 0, "data.text_length": 8,
        "data.tokenizer": None, "trainer.max_steps": 1, "trainer.deterministic": True, "output_dir": folder,
    }  # fmt: skip
    nc.train("demo_video2world", {**settings, **overrides})


def main(folder: Path) -> None:
    shards = write_shards(folder / "shards", shape=(3, 4, 6))
    before = snapshot()
    train(folder / "first", shards)
    print(*differences(before, "after a run"), sep="\n")

    from nemo_cosmos.training.callbacks import MetricsCallback

    def fail(*args: Any, **kwargs: Any) -> None:
        raise ArithmeticError("a step fails")

    for name in ("lightning.pytorch", "nemo_logger"):
        logging.getLogger(name).setLevel(logging.DEBUG)
    kept, MetricsCallback.on_train_batch_end = MetricsCallback.on_train_batch_end, fail  # type: ignore[method-assign]
    before, files = snapshot(), open_files()
    try:
        train(folder / "second", shards, **{"data.global_batch": 2, "trainer.precision": "bf16"})
        print("the step did not fail")
    except ArithmeticError:
        pass
    print(*differences(before, "after an error"), sep="\n")
    if open_files() > files:
        print(f"after an error: {open_files()} files are open, before {files}")
    MetricsCallback.on_train_batch_end = kept  # type: ignore[method-assign]
    before = snapshot()
    train(folder / "first", shards, **{"trainer.max_steps": 2, "data.global_batch": 4, "data.allow_change": True})
    print(*differences(before, "after going on"), sep="\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
