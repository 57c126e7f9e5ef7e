"""NeMo and Megatron-Core on a machine without a GPU.

Both name CUDA outright in places where any device would do (nemo_toolkit 2.7.3, megatron-core 0.16.1, PyTorch 2.13).
:func:`enable_cpu` redirects those places to the CPU for the rest of the process; with a GPU it does nothing.
Each redirect stands below with its reason; nothing here changes arithmetic.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

logger = logging.getLogger(__name__)


class _Stream:
    """Stands for ``torch.cuda.Stream`` and ``Event``: work on the CPU is already in order."""

    device = torch.device("cpu")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        pass

    def wait_stream(self, stream: Any) -> None:
        pass

    def wait_event(self, event: Any) -> None:
        pass

    def wait(self, stream: Any = None) -> None:
        pass

    def record(self, stream: Any = None) -> None:
        pass

    def record_event(self, event: Any = None) -> _Stream:
        return self

    def query(self) -> bool:
        return True

    def synchronize(self) -> None:
        pass

    def elapsed_time(self, end: Any) -> float:
        return 0.0


@contextlib.contextmanager
def _stream_context(stream: Any) -> Iterator[None]:
    yield


class _CudaToCpu(TorchFunctionMode):
    """Rewrites ``device="cuda"`` and drops page-locking in calls of torch functions.

    NeMo logs metrics through ``torch.tensor(x, pin_memory=True).to("cuda")``; Megatron allocates buffers, and scales
    and norms of gradients, on literal "cuda".
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if "device" in kwargs and _is_cuda(kwargs["device"]):
            kwargs["device"] = torch.device("cpu")
        if kwargs.get("pin_memory"):
            kwargs["pin_memory"] = False
        if func is torch.Tensor.pin_memory:
            return args[0]
        if func is torch.Tensor.to and any(_is_cuda(value) for value in args[1:]):
            args = tuple(torch.device("cpu") if _is_cuda(value) else value for value in args)
        if func is torch.Tensor.type and len(args) == 1 and not kwargs:
            # Megatron's FP32 optimizer and gradient clipping accept only the type names of CUDA tensors.
            return str(func(*args)).replace("torch.", "torch.cuda.")
        return func(*args, **kwargs)


def _is_cuda(device: Any) -> bool:
    if isinstance(device, str):
        return device.startswith("cuda")
    return isinstance(device, torch.device) and device.type == "cuda"


_enabled = False


def enable_cpu() -> bool:
    """Redirect CUDA calls to the CPU when there is no GPU; says whether calls are redirected."""
    global _enabled
    if not _enabled and not torch.cuda.is_available():
        _redirect()
        _enabled = True
        logger.info("no GPU: NeMo and Megatron-Core run on the CPU")
    return _enabled


def _redirect() -> None:
    cuda = torch.cuda
    cpu = torch.device("cpu")
    replacements: dict[str, Any] = {
        # Used as a device for new tensors; "cpu" is one too.
        "current_device": lambda: cpu,
        # Megatron takes the local rank modulo this.
        "device_count": lambda: 1,
        "set_device": lambda device: None,
        # Asked for capability-dependent kernels: the oldest has none of them.
        "get_device_capability": lambda device=None: (0, 0),
        "get_device_name": lambda device=None: "cpu",
        # DDP is built, and pipeline communication waits, on side streams.
        "Stream": _Stream,
        "Event": _Stream,
        "stream": _stream_context,
        "current_stream": lambda device=None: _Stream(),
        "default_stream": lambda device=None: _Stream(),
        "synchronize": lambda device=None: None,
        # The tensor-parallel random number tracker keeps CUDA states; there is no dropout to use them.
        "get_rng_state": lambda device=None: torch.get_rng_state(),
        "set_rng_state": lambda state, device=None: None,
        "manual_seed": lambda seed: None,
        # Memory figures.
        "memory_allocated": lambda device=None: 0,
        "max_memory_allocated": lambda device=None: 0,
        "memory_reserved": lambda device=None: 0,
        "max_memory_reserved": lambda device=None: 0,
        "reset_peak_memory_stats": lambda device=None: None,
        "empty_cache": lambda: None,
    }
    for name, replacement in replacements.items():
        setattr(cuda, name, replacement)
    cuda.nvtx.range_push = lambda *args, **kwargs: 0
    cuda.nvtx.range_pop = lambda *args, **kwargs: 0
    torch.Tensor.cuda = lambda self, *args, **kwargs: self  # type: ignore[method-assign]
    torch.nn.Module.cuda = lambda self, *args, **kwargs: self  # type: ignore[method-assign]
    # Entered for good: there is no place in NeMo's run where it could end.
    _CudaToCpu().__enter__()
