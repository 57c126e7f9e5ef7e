"""What is changed in nemo_toolkit 2.7.3 and megatron-core 0.16.1 while they run: all of it, each with its reason."""

from __future__ import annotations

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


def patch_nemo() -> None:
    """Changes that every training needs; call once NeMo can be imported, before a trainer is made."""
    _remove_telemetry()
    _gather_each_dtype_on_its_own()


def _remove_telemetry() -> None:
    """NeMo's telemetry callback raises inside ``save_checkpoint`` unless it is configured; here it is not wanted."""
    from nemo.lightning.callback_group import CallbackGroup

    CallbackGroup.get_instance()._callbacks = []


def _gather_each_dtype_on_its_own() -> None:
    """Virtual pipeline stages gather all their parameters in one coalesced call, which must not mix dtypes.

    With some parameters in fp32 under bf16, gloo fills the one from the memory of the other.
    """
    from megatron.core.distributed import distributed_data_parallel as ddp
    from megatron.core.distributed.param_and_grad_buffer import partition_buckets

    def partition_by_dtype(buffers: list[Any], force_single_bucket_group: bool = False) -> list[Any]:
        if not force_single_bucket_group:
            return partition_buckets(buffers)
        return [group for buffer in buffers for group in partition_buckets([buffer], force_single_bucket_group=True)]

    ddp.partition_buckets = partition_by_dtype
