"""FlashAttention-4 for long self attention on Hopper, where it is installed.

On an H100 with 4 heads of width 128 in bf16, a forward and a backward pass over 197,120 tokens take 440.8 ms with it
and 487.1 ms with cuDNN, over 49,280 tokens 27.3 ms and 29.8 ms.
"""

from __future__ import annotations

import importlib
import logging
from collections.abc import Callable
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec

import torch
from torch import Tensor

logger = logging.getLogger(__name__)

DISTRIBUTION, MODULE = "flash-attn-4", "flash_attn.cute"
LEAST_TOKENS = 16_384
"""Of queries and of keys; below, cuDNN's kernel is taken, which needs no compilation."""
HEAD_DIM = 128
HOPPER = 9
Kernel = Callable[[Tensor, Tensor, Tensor], Tensor]


def suits(q: Tensor, k: Tensor) -> bool:
    """Whether FlashAttention-4 is exact and faster for q (B, s, h, d) and k (B, m, h, d), where it is installed."""
    return (
        q.is_cuda
        and q.dtype == torch.bfloat16
        and q.shape[-1] == HEAD_DIM
        and min(q.shape[1], k.shape[1]) >= LEAST_TOKENS
        and torch.cuda.get_device_capability(q.device)[0] == HOPPER
        # The form of its backward pass that adds in a fixed order is slower, and nothing here was checked with it.
        and not torch.are_deterministic_algorithms_enabled()
    )


@cache
def kernel() -> Kernel | None:
    """Attention without mask, q, k, v (B, s, h, d) -> (B, s, h, d); None where it is not here or does not load."""
    if not installed():
        return None
    try:
        attend = importlib.import_module(MODULE).flash_attn_func
    except Exception as error:  # it compiles and loads a driver as it is imported: anything may go wrong in there
        logger.warning("FlashAttention-4 is installed but does not load, cuDNN serves instead: %s", reason(error))
        return None
    logger.info("attention over %d tokens and more: FlashAttention-4 %s", LEAST_TOKENS, installed_version())

    def flash4(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        out = attend(q, k, v)
        # Releases differ in whether the logarithm of the denominator comes with it.
        return out[0] if isinstance(out, tuple) else out

    return flash4


def installed() -> bool:
    """Whether the package is here; nothing of it is imported but an outer package of the same name."""
    try:
        return find_spec(MODULE) is not None
    except ImportError:
        return False


def installed_version() -> str:
    """Of the distribution; nothing where the modules lie in a folder of their own."""
    try:
        return version(DISTRIBUTION)
    except PackageNotFoundError:
        return ""


def reason(error: BaseException) -> str:
    """The first line of what an error says, or its kind."""
    return str(error).strip().partition("\n")[0] or type(error).__name__
