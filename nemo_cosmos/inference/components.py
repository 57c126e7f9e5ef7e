"""Models that are on the device only while they are used."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Generic, Protocol, TypeVar

import torch


class Movable(Protocol):
    """Anything with weights, as far as this module cares."""

    def to(self, *, device: Any) -> Any: ...


Model = TypeVar("Model", bound=Movable)


class Component(Generic[Model]):
    """A model that is loaded at its first use.

    Without ``offload`` it then stays on the device. With it, every use ends by giving the device's memory back: on an
    accelerator the weights wait in host memory, on the CPU they are dropped and read again for the next use.

    Attributes:
        name: for messages.
        loads: how often the weights were read.
        load_seconds: time spent reading them.
    """

    def __init__(
        self,
        name: str,
        load: Callable[[torch.device], Model],
        *,
        device: torch.device | str = "cpu",
        offload: bool = False,
    ) -> None:
        self.name, self.offload, self.device = name, offload, torch.device(device)
        self.loads, self.load_seconds = 0, 0.0
        self._load = load
        self._model: Model | None = None
        self._depth = 0

    @contextmanager
    def use(self) -> Iterator[Model]:
        """The model, on its device. Uses may nest; the outermost decides about offloading."""
        if self._model is None:
            started = time.perf_counter()
            self._model = self._load(self.device)
            self.loads += 1
            self.load_seconds += time.perf_counter() - started
        elif self.offload and self._depth == 0:
            self._model.to(device=self.device)
        model = self._model
        self._depth += 1
        try:
            yield model
        finally:
            self._depth -= 1
            if self.offload and self._depth == 0:
                if self.device.type == "cpu":
                    self.release()
                else:
                    model.to(device="cpu")
                    free_memory(self.device)

    def release(self) -> None:
        """Drop the model for good; the next use reads it again."""
        self._model = None
        free_memory(self.device)

    @property
    def resident(self) -> bool:
        """Whether the model is in memory, on the device or on the host."""
        return self._model is not None


def free_memory(device: torch.device) -> None:
    """Collect what is no longer referenced and return the allocator's cached blocks to the device."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
