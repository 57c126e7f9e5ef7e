"""What is changed in nemo_toolkit 2.7.3, megatron-core 0.16.1 and Lightning 2.4 while they run, and why."""

from __future__ import annotations

import importlib.util
import logging
import sys
import types
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from importlib.machinery import ModuleSpec
from typing import Any

import torch
from torch import Tensor

from nemo_cosmos.upstream.replaced import replaced, stand_ins

_LLM = "nemo.collections.llm"
_REPLACED = (_LLM, f"{_LLM}.modelopt", f"{_LLM}.modelopt.distill", f"{_LLM}.modelopt.distill.utils",
             f"{_LLM}.modelopt.model_utils")  # fmt: skip
_OPTIONAL = ("wandb", "diffusers", "av", "PIL", "cv2", "torchvision", "matplotlib")
"""Packages that training from shards has no use for, and that NeMo's own dependencies look for."""
_TALKATIVE = ("lightning.pytorch", "nemo_logger")
"""Loggers that tell at length what nobody has asked for."""


@contextmanager
def lean_imports() -> Iterator[None]:
    """Within it, NeMo can be imported with what training from shards needs alone; packages that are there stay.

    Enter it before ``import nemo.lightning``. A run stays within it: NeMo imports in its steps, too.
    """
    with stand_ins({**_absent_packages(), **_onnx(), **_language_models()}):
        yield


def _absent_packages() -> dict[str, None]:
    """One answer to all who look for a package that is not installed.

    Lightning 2.4, Megatron-Core, torchmetrics 1.9, transformers 4.57, accelerate and modelopt 0.37 each ask in a way
    of their own whether these packages are there, some by importing half of one. Where one cannot be found, ``None``
    in ``sys.modules`` makes every ``import`` of it fail and every search for it come back empty, at once.
    """
    return {name: None for name in _OPTIONAL if name not in sys.modules and not _installed(name)}


def _onnx() -> dict[str, types.ModuleType]:
    """``nemo.utils.export_utils`` imports onnx (18 MB) at its top, for exports that a training run never makes.

    An empty module stands in where onnx is not installed, and only there.
    """
    if _installed("onnx"):
        return {}
    stand_in = types.ModuleType("onnx")
    stand_in.__spec__ = ModuleSpec("onnx", None)
    return {"onnx": stand_in}


def _installed(name: str) -> bool:
    if name in sys.modules:
        return sys.modules[name] is not None
    try:
        return importlib.util.find_spec(name) is not None
    except ImportError:
        return False


def _language_models() -> dict[str, types.ModuleType]:
    """Five modules of the language model collection that answer "nothing to do".

    NeMo imports it inside its Megatron step and checkpoint functions, for distillation and quantisation that a
    diffusion model has no part in. The import takes some seconds in every process and some forty further packages.
    Nothing is replaced when the program has imported the real collection already.
    """
    if _LLM in sys.modules:
        return {}
    modules = {name: types.ModuleType(name) for name in _REPLACED}
    for name, module in modules.items():
        module.__path__ = []
        parent, _, child = name.rpartition(".")
        if parent in modules:
            setattr(modules[parent], child, module)
    for name, function in (
        ("distill.utils", "get_tensor_shapes_adjust_fn_for_distillation"),
        ("model_utils", "save_modelopt_state"),
        ("model_utils", "restore_modelopt_state"),
    ):
        setattr(modules[f"{_LLM}.modelopt.{name}"], function, _nothing)
    return modules


def _nothing(*args: Any, **kwargs: Any) -> None:
    return None


@contextmanager
def adapted_nemo() -> Iterator[None]:
    """Changes that every training needs; imports NeMo."""
    from megatron.core.distributed import distributed_data_parallel as ddp
    from megatron.core.optimizer import clip_grads
    from nemo.lightning.callback_group import CallbackGroup

    # NeMo's telemetry callback raises inside ``save_checkpoint`` unless it is configured; here it is not wanted.
    no_telemetry = replaced(CallbackGroup.get_instance(), {"_callbacks": []})
    by_dtype = replaced(ddp, {"partition_buckets": _partition_by_dtype})
    with no_telemetry, by_dtype, replaced(clip_grads, _whole_list_kernels(clip_grads)), _warnings_alone(*_TALKATIVE):
        yield


@contextmanager
def _warnings_alone(*names: str) -> Iterator[None]:
    """Within it, these loggers say warnings alone; then what they said before."""
    levels = {name: logging.getLogger(name).level for name in names}
    for name in names:
        logging.getLogger(name).setLevel(logging.WARNING)
    try:
        yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)


def _partition_by_dtype(buffers: list[Any], force_single_bucket_group: bool = False) -> list[Any]:
    """Virtual pipeline stages gather all their parameters in one coalesced call, which must not mix dtypes.

    With some parameters in fp32 under bf16, gloo fills the one from the memory of the other.
    """
    from megatron.core.distributed.param_and_grad_buffer import partition_buckets

    if not force_single_bucket_group:
        return partition_buckets(buffers)
    return [group for buffer in buffers for group in partition_buckets([buffer], force_single_bucket_group=True)]


def _whole_list_kernels(clip_grads: Any) -> dict[str, Any]:
    """Norm and scaling of all gradients at once, in place of Megatron-Core's own for machines without Apex, which read
    every single norm back from the GPU."""
    own = {"l2_norm_impl": "local_multi_tensor_l2_norm", "multi_tensor_scale_impl": "local_multi_tensor_scale"}
    ours = {"l2_norm_impl": _l2_norm, "multi_tensor_scale_impl": _scale}
    return {name: ours[name] for name, theirs in own.items() if getattr(clip_grads, name).__name__ == theirs}


def _l2_norm(chunk_size: int, noop: Any, lists: list[list[Tensor]], per_tensor: bool) -> tuple[Tensor, None]:
    """(1,) norm of all tensors, on their device; the arithmetic is that of Megatron-Core's."""
    tensors = [tensor for one in lists for tensor in one]
    norms = torch.stack([norm.float() for norm in torch._foreach_norm(tensors)])
    return torch.norm(norms.cpu()).to(norms.device).reshape(1), None


def _scale(chunk_size: int, noop: Any, lists: list[list[Tensor]], scale: float) -> None:
    """The tensors of the second list become those of the first times ``scale``."""
    sources, targets = lists
    torch._foreach_copy_(targets, torch._foreach_mul(sources, scale))


def leave_signals_alone(trainer: Any) -> None:
    """Lightning 2.4 puts handlers of its own before those that are there, and under Slurm some that save a checkpoint
    in its own format and queue the job again; here signals are ``nemo_cosmos.interrupts``' matter."""
    trainer._signal_connector.register_signal_handlers = _nothing


def release_network(chunks: Iterable[Any], optimizers: Iterable[Any]) -> None:
    """Let go of a trained network, its gradients and moments.

    The nodes that accumulate gradients have hooks that keep Megatron-Core's DDP, which keeps the nodes; so do the fp32
    shards of the distributed optimizer, which are views of the weights. Both are circles through C++, which Python's
    collector cannot see.

    Args:
        chunks: the stages in their wrappers.
        optimizers: Megatron-Core's, without chains.
    """
    for module in chunks:
        while module is not None:
            getattr(module, "grad_accs", []).clear()
            module = getattr(module, "module", None)
    for part in optimizers:
        part.optimizer.state.clear()
        for group in part.optimizer.param_groups:
            group["params"].clear()
        for name in ("shard_fp32_groups", "shard_float16_groups", "shard_fp32_from_float16_groups"):
            getattr(part, name, []).clear()
