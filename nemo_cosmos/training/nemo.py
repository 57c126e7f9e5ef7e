"""``nemo.lightning`` as this package uses it, imported in one place.

nemo_toolkit 2.7.3 imports the language model collection inside its Megatron step and checkpoint functions, for
distillation and quantisation that a diffusion model has no part in. That import takes some seconds in every process and
some forty further packages. Unless the program has imported the real collection already, five of its modules are
replaced with ones that answer "nothing to do". Its telemetry callbacks, which raise inside ``save_checkpoint`` when they
are not configured, are removed: this package reports to nobody.
"""

from __future__ import annotations

import queue
import sys
import types
from typing import Any

_LLM = "nemo.collections.llm"
_REPLACED = (_LLM, f"{_LLM}.modelopt", f"{_LLM}.modelopt.distill", f"{_LLM}.modelopt.distill.utils",
             f"{_LLM}.modelopt.model_utils")  # fmt: skip


def prepare_nemo() -> None:
    """Make ``import nemo.lightning`` cheap and silent; call before it."""
    if _LLM in sys.modules:
        return
    modules = {name: types.ModuleType(name) for name in _REPLACED}
    for name, module in modules.items():
        module.__path__ = []  # type: ignore[attr-defined]
        parent, _, child = name.rpartition(".")
        if parent in modules:
            setattr(modules[parent], child, module)
    set_attribute(modules[f"{_LLM}.modelopt.distill.utils"], "get_tensor_shapes_adjust_fn_for_distillation")
    set_attribute(modules[f"{_LLM}.modelopt.model_utils"], "save_modelopt_state")
    set_attribute(modules[f"{_LLM}.modelopt.model_utils"], "restore_modelopt_state")
    sys.modules.update(modules)


def set_attribute(module: types.ModuleType, name: str) -> None:
    """A function of any arguments that returns None."""

    def nothing(*args: Any, **kwargs: Any) -> None:
        return None

    setattr(module, name, nothing)


def silence_telemetry() -> None:
    """Take NeMo's telemetry callbacks out of its global callback group."""
    from nemo.lightning.callback_group import CallbackGroup

    group = CallbackGroup.get_instance()
    group._callbacks = []


def save_without_helper_process() -> None:
    """Give Megatron's checkpoint writer a queue of this process, which is enough for synchronous saves."""
    from megatron.core.dist_checkpointing.strategies import filesystem_async

    if filesystem_async._results_queue is None:
        filesystem_async._results_queue = queue.Queue()
