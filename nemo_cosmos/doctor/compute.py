"""A forward and a backward pass of the network on this device, and which attention it takes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from nemo_cosmos.doctor.finding import Finding

if TYPE_CHECKING:
    import torch

BACKENDS = {
    "cudnn": "cuDNN",
    "flash_attention_for_cpu": "flash (CPU)",
    "flash": "flash",
    "efficient": "memory-efficient",
}
"""Parts of the names of PyTorch's kernels, the longer before the shorter, and what they are called."""
UNFUSED = "math, unfused"


def check_network() -> Iterator[Finding]:
    """Time our network, and name the attention of its largest layer: a slice of the 7B on a GPU, a tiny one else."""
    import torch

    from nemo_cosmos.bench.compare import choose_case
    from nemo_cosmos.bench.step import build_ours, call_ours, time_step

    on_gpu = torch.cuda.is_available()
    latent = (8, 64, 64) if on_gpu else (2, 16, 16)
    precision = "bf16" if on_gpu else "fp32"
    case = choose_case(on_gpu=on_gpu, preset=None, layers=2, latent=latent, steps=3)
    try:
        measured = time_step("ours", case, build_ours(case), call_ours)
        backend = attention_backend(case.device, case.dtype, heads=case.config.num_attention_heads)
    except (RuntimeError, NotImplementedError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        advice = "nvidia-smi shows whether another process holds the GPU" if on_gpu else "reinstall torch"
        yield Finding("fail", "network", f"forward and backward in {precision} on {case.device}: {reason}; {advice}")
        return
    text = f"forward and backward of {case.config.num_layers} layers, {case.tokens:,} tokens, in {precision}"
    yield Finding("ok", "network", f"{text}: {measured.seconds * 1e3:.1f} ms, {measured.tflops:.2f} TFLOP/s")
    if on_gpu and backend in (UNFUSED, BACKENDS["efficient"]):
        advice = "slow: cuDNN's or flash attention needs a GPU from Ampere on, and a torch that is built with it"
        yield Finding("note", "attention", f"{backend}; {advice}")
    else:
        yield Finding("ok", "attention", f"{backend}, in {precision}, as PyTorch runs it")
    if on_gpu:
        yield from check_long_attention(torch.cuda.get_device_capability()[0])


def check_long_attention(capability: int) -> Iterator[Finding]:
    """What attends over long sequences; nothing on a GPU of another kind than Hopper, where that is as above."""
    from nemo_cosmos.models.dit import flash4

    if capability != flash4.HOPPER:
        return
    long = f"self attention over {flash4.LEAST_TOKENS:,} tokens and more"
    if not flash4.installed():
        advice = "pip install 'nemo_cosmos[flash4]' makes its forward and backward pass about a tenth faster"
        yield Finding("ok", "long attention", f"as above; {advice}")
    elif flash4.kernel() is None:
        advice = "it is installed but does not load, as the warning says; reinstall 'nemo_cosmos[flash4]'"
        yield Finding("note", "long attention", f"without FlashAttention-4: {advice}")
    else:
        yield Finding("ok", "long attention", f"FlashAttention-4 {flash4.installed_version()} for {long}")


def attention_backend(device: str, dtype: torch.dtype, *, heads: int) -> str:
    """The kernel behind the network's scaled dot product, by name, as PyTorch dispatches it."""
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode

    from nemo_cosmos.models.dit.attention import scaled_dot_product

    names: list[str] = []

    class Seen(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            names.append(str(func))
            return func(*args, **(kwargs or {}))

    x = torch.randn(256, 1, heads, 128, device=device, dtype=dtype)
    with torch.no_grad(), Seen():
        scaled_dot_product(x, x, x)
    fused = [name for name in names if "scaled_dot_product" in name]
    # Without a fused kernel it is taken apart into matrix products and a softmax.
    return next((said for part, said in BACKENDS.items() if any(part in name for name in fused)), UNFUSED)
