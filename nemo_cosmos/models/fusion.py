"""Functions that are one kernel on a GPU and plain PyTorch elsewhere."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor

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


@functools.cache
def allow_many_shapes() -> None:
    """Allow 64 compiled variants of a function: after 8 PyTorch would run it eagerly, several times slower."""
    config = torch._dynamo.config
    config.recompile_limit = max(config.recompile_limit, 64)


def allow_repeated_backward() -> None:
    """Let functions compiled from now on be differentiated twice (retain_graph); they keep a little more memory.

    PyTorch 2.11 otherwise gives tensors that the forward pass saved to the backward pass as working memory.
    """
    import torch._functorch.config

    torch._functorch.config.donated_buffer = False
