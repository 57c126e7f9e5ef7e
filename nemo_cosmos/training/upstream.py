"""What is changed in nemo_toolkit 2.7.3 and megatron-core 0.16.1 while they run: all of it, each with its reason."""

from __future__ import annotations

import queue
import sys
import types
from typing import Any

_LLM = "nemo.collections.llm"
_REPLACED = (_LLM, f"{_LLM}.modelopt", f"{_LLM}.modelopt.distill", f"{_LLM}.modelopt.distill.utils",
             f"{_LLM}.modelopt.model_utils")  # fmt: skip


def prepare_nemo() -> None:
    """Spare the language model collection; call before ``import nemo.lightning``.

    NeMo imports it inside its Megatron step and checkpoint functions, for distillation and quantisation that a
    diffusion model has no part in. The import takes some seconds in every process and some forty further packages.
    Unless the program has imported the real collection already, five of its modules are replaced with ones that answer
    "nothing to do".
    """
    if _LLM in sys.modules:
        return
    modules = {name: types.ModuleType(name) for name in _REPLACED}
    for name, module in modules.items():
        module.__path__ = []  # type: ignore[attr-defined]
        parent, _, child = name.rpartition(".")
        if parent in modules:
            setattr(modules[parent], child, module)
    for name, function in (
        ("distill.utils", "get_tensor_shapes_adjust_fn_for_distillation"),
        ("model_utils", "save_modelopt_state"),
        ("model_utils", "restore_modelopt_state"),
    ):
        setattr(modules[f"{_LLM}.modelopt.{name}"], function, _nothing)
    sys.modules.update(modules)


def _nothing(*args: Any, **kwargs: Any) -> None:
    return None


def patch_nemo(*, on_cpu: bool) -> None:
    """Changes that every training needs; call once NeMo can be imported, before a trainer is made."""
    _remove_telemetry()
    _save_without_helper_process()
    if on_cpu:
        _load_checkpoints_on_cpu()


def _remove_telemetry() -> None:
    """NeMo's telemetry callback raises inside ``save_checkpoint`` unless it is configured; here it is not wanted."""
    from nemo.lightning.callback_group import CallbackGroup

    CallbackGroup.get_instance()._callbacks = []


def _save_without_helper_process() -> None:
    """Megatron starts a process that imports everything anew, only to hold a queue for results of checkpoint writers.

    Saves here are synchronous, so a queue within this process does.
    """
    from megatron.core.dist_checkpointing.strategies import filesystem_async

    if filesystem_async._results_queue is None:
        filesystem_async._results_queue = queue.Queue()


def _load_checkpoints_on_cpu() -> None:
    """NeMo moves loaded tensors to "cuda" and asserts that CUDA is initialised; without a GPU they stay."""
    from nemo.lightning.io import pl

    pl._fix_tensors_device = lambda checkpoint: checkpoint


def load_adam_without_step(optimizer: Any) -> None:
    """Let the distributed optimizer resume with torch's Adam.

    Megatron keeps the step count apart from the other state when it saves, but asks for it among them when it loads.
    """

    def set_states(model_param: Any, tensors: dict[str, Any]) -> None:
        group, order = optimizer.model_param_group_index_map[model_param]
        main = optimizer.optimizer.param_groups[group]["params"][order]
        for name, tensor in {"param": main, **optimizer.optimizer.state[main]}.items():
            if name != "step":
                tensor.copy_(tensors[name])

    optimizer._set_main_param_and_optimizer_states = set_states
