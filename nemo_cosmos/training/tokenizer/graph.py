"""Forward and backward pass of a tokenizer as one CUDA graph.

A small network spends most of a step on starting its thousands of kernels. Recorded once, they are started together.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from nemo_cosmos.errors import InputError
from nemo_cosmos.models.tokenizer import TokenizerModule
from nemo_cosmos.models.tokenizer.autoencoder import TokenizerOutput
from nemo_cosmos.training.tokenizer.config import TokenizerTrainConfig


def wants_graph(config: TokenizerTrainConfig, device: torch.device, world: int) -> bool:
    """Whether steps are replayed from a graph: ``trainer.cuda_graph``, of which None means wherever that can be.

    Args:
        world: processes of the job.

    Raises:
        InputError: it is asked for beside a setting that needs other kernels from step to step.
    """
    asked = config.trainer.cuda_graph
    if asked is False:
        return False
    reasons = {
        "there is no GPU": device.type != "cuda",
        f"there are {world} processes, whose gradients are added while they are made": world > 1,
        "trainer.compile=true makes graphs of its own": bool(config.trainer.compile),
        "trainer.activation_checkpointing=true repeats parts of the forward pass": (
            config.trainer.activation_checkpointing
        ),
        "loss.adversarial asks for gradients of a single layer": config.loss.adversarial.enabled,
        "loss.video_consistency puts windows of another length through the network": (
            config.loss.video_consistency.enabled
        ),
    }
    found = [reason for reason, holds in reasons.items() if holds]
    if found and asked:
        raise InputError(f"trainer.cuda_graph=true: {found[0]}; set trainer.cuda_graph=false")
    return not found


class GraphedTokenizer(nn.Module):
    """A tokenizer in training mode whose passes are replayed; takes videos of one shape alone.

    It has no parameters of its own: gradients arrive at those of the module, which may be stepped in place.

    Args:
        module: on its GPU, in training mode.
        video: (B, 3, T, H, W) in [−1, 1] on the same GPU: the shape of every later one.
        precision: "bf16" records under autocast; later calls must be made under one without cache as well.
    """

    def __init__(self, module: TokenizerModule, video: Tensor, precision: str) -> None:
        super().__init__()
        passes = _Passes(module)
        with torch.autocast("cuda", torch.bfloat16, enabled=precision == "bf16", cache_enabled=False):
            recorded: Any = torch.cuda.make_graphed_callables(passes, (video,))
        self._call = [recorded]  # In a list, so that the module's parameters are not this one's as well.
        self._fields = passes.fields

    def forward(self, video: Tensor) -> TokenizerOutput:
        """As :meth:`TokenizerModule.forward`; what it gave is overwritten by the next call."""
        given = dict(zip(self._fields, self._call[0](video), strict=True))
        return TokenizerOutput(*(given.get(name) for name in TokenizerOutput._fields))  # type: ignore[arg-type]


class _Passes(nn.Module):
    """A tokenizer that answers with those tensors that its kind has."""

    def __init__(self, module: TokenizerModule) -> None:
        super().__init__()
        self.module = module
        self.fields: list[str] = []

    def forward(self, video: Tensor) -> tuple[Tensor, ...]:
        output = self.module(video)._asdict()
        self.fields = [name for name, value in output.items() if value is not None]
        return tuple(output[name] for name in self.fields)
