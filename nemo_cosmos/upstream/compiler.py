"""Options of PyTorch's compiler (2.11 to 2.13) that are set when something is compiled, and hold from then on."""

from __future__ import annotations

import functools

import torch


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


def compile_blocks_whole() -> None:
    """Under DistributedDataParallel PyTorch would cut a compiled block where a gradient bucket ends.

    Blocks are small enough for gradients to be reduced early, and the pieces' convolutions failed in their backward
    pass (2.11, cuDNN).
    """
    torch._dynamo.config.optimize_ddp = False
