"""Functions that are one kernel on a GPU and plain PyTorch elsewhere."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor

from nemo_cosmos.upstream.compiler import allow_many_shapes

_Function = TypeVar("_Function", bound=Callable[..., Any])


def fused(function: _Function) -> _Function:
    """Compile ``function`` when its first argument is on CUDA, run it eagerly elsewhere."""

    @functools.cache
    def compiled() -> Callable[..., Any]:  # Not before the first use: it imports the compiler, which takes seconds.
        allow_many_shapes()
        return torch.compile(function, dynamic=False)

    @functools.wraps(function)
    def dispatch(x: Tensor, *args: Any, **kwargs: Any) -> Any:
        if not x.is_cuda or torch.compiler.is_compiling():
            return function(x, *args, **kwargs)
        return compiled()(x, *args, **kwargs)

    return dispatch  # type: ignore[return-value]
