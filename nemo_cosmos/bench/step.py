"""Time of one training step of our network and of diffusers', on the same weights in the same process."""

from __future__ import annotations

import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import sdpa_kernel

from nemo_cosmos.checkpoint.diffusers import diffusers_config, diffusers_names
from nemo_cosmos.data.network_inputs import NetworkInputs
from nemo_cosmos.models.dit import CosmosDiT, DiTConfig, build_dit, transformer_config
from nemo_cosmos.models.dit.attention import ATTENTION_BACKENDS
from nemo_cosmos.models.dit.size import network_size
from nemo_cosmos.parallel.groups import ParallelGroups
from nemo_cosmos.planning.cost import training_flops

KERNEL_KINDS = (
    ("attention", ("cudnn", "flash", "fmha", "sdpa", "attention")),
    ("compiled element-wise", ("triton_",)),
    ("matrix products", ("gemm", "nvjet", "cutlass", "sm90_xmma", "cublas", "splitk")),
    ("memory copies", ("memcpy", "memset")),
)


@dataclass(frozen=True)
class Case:
    """What is timed: forward and backward of ``config`` on one sample, without recomputation."""

    config: DiTConfig
    latent: tuple[int, int, int]
    """Latent frames, height and width."""
    dtype: torch.dtype = torch.bfloat16
    device: str = "cuda"
    text_tokens: int = 512
    """Of each view."""
    steps: int = 5
    warmup: int = 3

    @property
    def tokens(self) -> int:
        frames, height, width = self.latent
        return frames * (height // self.config.patch_size) * (width // self.config.patch_size)

    @property
    def flops(self) -> float:
        views = self.config.num_views
        return training_flops(network_size(self.config), self.tokens, views * self.text_tokens, views)


@dataclass
class Measurement:
    """Median seconds of a step, and what else was seen."""

    name: str
    seconds: float
    tflops: float
    """Model FLOPs over time, 10¹² a second; see ``planning.cost.training_flops``."""
    peak_bytes: int
    """Most memory allocated on the GPU, weights and gradients included; 0 on a CPU."""
    all_seconds: list[float] = field(default_factory=list)


@dataclass
class Inputs:
    """One random sample; the same numbers for both networks."""

    x: Tensor
    timesteps: Tensor
    told: NetworkInputs
    gradient: Tensor

    @classmethod
    def draw(cls, case: Case, seed: int = 0) -> Inputs:
        generator = torch.Generator(case.device).manual_seed(seed)
        frames, height, width = case.latent

        def normal(*shape: int) -> Tensor:
            return torch.randn(shape, generator=generator, device=case.device).to(case.dtype)

        mask = None
        if case.config.condition_mask:
            mask = torch.zeros(1, 1, *case.latent, device=case.device, dtype=case.dtype)
            mask[:, :, :: frames // case.config.num_views] = 1
        return cls(
            x=normal(1, 16, frames, height, width),
            timesteps=torch.tensor([0.1], device=case.device),
            told=NetworkInputs(
                text=normal(1, case.config.num_views * case.text_tokens, case.config.text_width),
                fps=torch.full((1,), 24.0, device=case.device),
                padding_mask=torch.zeros(1, 1, height, width, device=case.device, dtype=case.dtype),
                condition_mask=mask,
            ),
            gradient=normal(1, 16, frames, height, width),
        )


def build_ours(case: Case) -> CosmosDiT:
    """Our network in this process with random weights in which every path counts."""
    transformer = transformer_config(case.config, dtype=case.dtype)
    with torch.device(case.device):
        net = build_dit(case.config, transformer=transformer, groups=ParallelGroups(), seed=None)
    generator = torch.Generator(case.device).manual_seed(1)
    with torch.no_grad():
        for parameter in net.parameters():
            if parameter.dim() == 1:
                parameter.fill_(1.0)
            else:
                parameter.normal_(std=0.02, generator=generator)
    return net


def build_diffusers(case: Case, ours: CosmosDiT) -> nn.Module:
    """diffusers' ``CosmosTransformer3DModel`` with the weights of ``ours``.

    The padding mask is given with the latent's channels, so that torchvision is not needed.
    """
    from diffusers import CosmosTransformer3DModel

    settings = diffusers_config(case.config)
    settings.update(in_channels=settings["in_channels"] + 1, concat_padding_mask=False)
    with torch.device(case.device):
        model = CosmosTransformer3DModel(**settings).to(case.dtype)
    original = ours.to_original()
    state = {
        name: original[f"net.{released}"].to(case.device, case.dtype)
        for name, released in diffusers_names(case.config).items()
    }
    model.load_state_dict(state)
    return model


def call_ours(net: nn.Module, inputs: Inputs) -> Tensor:
    """(1, 16, T, H, W)."""
    return inputs.told.feed(net, inputs.x, inputs.timesteps)


def call_diffusers(model: nn.Module, inputs: Inputs) -> Tensor:
    """(1, 16, T, H, W), with cuDNN's attention first, as in our network."""
    frames, told = inputs.x.shape[2], inputs.told
    assert told.padding_mask is not None
    mask = [told.condition_mask] if told.condition_mask is not None else []
    padding = told.padding_mask.unsqueeze(2).expand(-1, -1, frames, -1, -1)
    x = torch.cat((inputs.x, *mask, padding), dim=1)
    with sdpa_kernel(ATTENTION_BACKENDS, set_priority=True):
        return model(x, inputs.timesteps, told.text, fps=24, return_dict=False)[0]


@contextmanager
def _gradients_freed(model: nn.Module) -> Iterator[None]:
    yield
    model.zero_grad(set_to_none=True)


def time_step(name: str, case: Case, model: nn.Module, call: Callable[[nn.Module, Inputs], Tensor]) -> Measurement:
    """Median of ``case.steps`` forward and backward passes after ``case.warmup`` untimed ones."""
    inputs = Inputs.draw(case)
    on_gpu = case.device != "cpu"
    model.train()

    def step() -> None:
        with _gradients_freed(model):
            call(model, inputs).backward(inputs.gradient)

    seconds = []
    for number in range(case.warmup + case.steps):
        if number == case.warmup and on_gpu:
            torch.cuda.reset_peak_memory_stats()
        if on_gpu:
            torch.cuda.synchronize()
        start = time.perf_counter()
        step()
        if on_gpu:
            torch.cuda.synchronize()
        if number >= case.warmup:
            seconds.append(time.perf_counter() - start)
    median = statistics.median(seconds)
    peak = torch.cuda.max_memory_allocated() if on_gpu else 0
    return Measurement(name, median, case.flops / median / 1e12, peak, seconds)


def kernel_times(case: Case, model: nn.Module, call: Callable[[nn.Module, Inputs], Tensor]) -> dict[str, Any]:
    """Milliseconds of GPU kernels in one forward and backward pass, by kind, and the longest ones by name."""
    from torch.profiler import ProfilerActivity, profile

    inputs = Inputs.draw(case)
    call(model, inputs).backward(inputs.gradient)
    model.zero_grad(set_to_none=True)
    torch.cuda.synchronize()
    with profile(activities=[ProfilerActivity.CUDA]) as seen:
        call(model, inputs).backward(inputs.gradient)
        torch.cuda.synchronize()
    model.zero_grad(set_to_none=True)
    kinds: dict[str, float] = defaultdict(float)
    names: dict[str, list[float]] = defaultdict(lambda: [0.0, 0])
    for event in seen.events():
        milliseconds = event.device_time_total / 1e3
        if milliseconds <= 0:
            continue
        kinds[kernel_kind(event.name)] += milliseconds
        names[event.name[:90]][0] += milliseconds
        names[event.name[:90]][1] += 1
    longest = sorted(names.items(), key=lambda item: -item[1][0])[:16]
    return {"kinds": dict(kinds), "longest": [(name, *values) for name, values in longest]}


def kernel_kind(name: str) -> str:
    """Which part of a layer a kernel belongs to, by its name."""
    lower = name.lower()
    return next((kind for kind, marks in KERNEL_KINDS if any(mark in lower for mark in marks)), "other")


def output_difference(case: Case) -> float:
    """Norm-relative difference between our output and diffusers' on the same weights."""
    ours = build_ours(case)
    theirs = build_diffusers(case, ours)
    inputs = Inputs.draw(case)
    with torch.no_grad():
        a, b = call_ours(ours.eval(), inputs).float(), call_diffusers(theirs.eval(), inputs).float()
    return float((a - b).norm() / b.norm())
