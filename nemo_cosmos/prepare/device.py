"""Where and in which precision preparation computes."""

from __future__ import annotations

import os

import torch

from nemo_cosmos.errors import InputError
from nemo_cosmos.precision import LONG, short_name, to_dtype


def resolve_device(name: str) -> torch.device:
    """``auto``, ``cpu``, ``cuda`` or ``cuda:N``; the rank's own GPU under torchrun, which ranks share where there are
    more of them than GPUs. InputError when there is no GPU."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise InputError(f"device {name!r}: this machine has no usable GPU; give --device cpu")
    if name not in ("cpu", "cuda") and not name.startswith("cuda:"):
        raise InputError(f"device {name!r}: expected auto, cpu, cuda or cuda:N")
    if name == "cuda":
        name = f"cuda:{int(os.environ.get('LOCAL_RANK', '0')) % torch.cuda.device_count()}"
    device = torch.device(name)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    return device


def resolve_dtype(name: str, device: torch.device) -> torch.dtype:
    """``auto`` is bf16 on a GPU and fp32 elsewhere; otherwise the name of a precision, or InputError."""
    if name == "auto":
        return torch.bfloat16 if device.type == "cuda" else torch.float32
    if short_name(name) not in LONG:
        raise InputError(f"dtype {name!r}: expected auto, {', '.join(LONG)}")
    return to_dtype(name)
