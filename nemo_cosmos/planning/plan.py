"""Which layouts a network can be trained in on a number of GPUs, with memory and speed of each."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace

from nemo_cosmos.config import ParallelConfig
from nemo_cosmos.errors import InputError
from nemo_cosmos.parallel.layout import Layout, divisors, valid_layouts
from nemo_cosmos.planning.cost import NetworkSize, training_flops
from nemo_cosmos.planning.memory import RESERVE_BYTES, Memory, Workload, predict_memory
from nemo_cosmos.planning.speed import predict_seconds

RECOMPUTE_MODES = ("none", "selective", "full")
LARGEST_MEMORY = 1e15
"""Bytes of one GPU."""
SLACK = 0.08
"""Share of a GPU's memory that stays free beside the reserve where layers keep their activations for speed alone:
predictions were up to 2 GiB too low, and fragments add to that."""
MACHINES = (1, 2, 4, 8, 16, 32, 64)
"""Numbers of GPUs that are tried for the smallest machine."""


@dataclass(frozen=True)
class Plan:
    """One layout with the recompute mode that is fastest among those that fit, on as few layers as fit."""

    layout: Layout
    parallel: ParallelConfig
    global_batch: int
    """The configured one, or the next larger one that the replicas divide."""
    memory: dict[str, Memory]
    """By recompute mode, each of all layers."""
    chosen: Memory
    """With ``parallel`` as it is."""
    fits: bool
    seconds: float
    """Of one optimizer step, estimated."""
    tflops: float
    """Model FLOPs a second and GPU, 10¹², estimated."""

    @property
    def gpus(self) -> int:
        """How many GPUs the layout takes."""
        layout = self.layout
        return layout.tensor * layout.pipeline * layout.context * layout.data

    @property
    def overrides(self) -> list[str]:
        """What selects this layout on the command line."""
        p = self.parallel
        out = [f"parallel.tensor={p.tensor}"]
        if p.sequence:
            out.append("parallel.sequence=true")
        if p.pipeline > 1:
            out.append(f"parallel.pipeline={p.pipeline}")
        if p.virtual_pipeline is not None:
            out.append(f"parallel.virtual_pipeline={p.virtual_pipeline}")
        out += [f"parallel.context={p.context}", f"parallel.recompute={p.recompute}"]
        if p.recompute_layers is not None:
            out.append(f"parallel.recompute_layers={p.recompute_layers}")
        return out


def make_plans(
    size: NetworkSize,
    work: Workload,
    parallel: ParallelConfig,
    *,
    gpus: int,
    gpu_memory: float,
    global_batch: int,
    gpus_per_node: int = 8,
) -> list[Plan]:
    """Every valid layout of ``gpus``, those that fit first, the fastest per sample first.

    Args:
        work: one micro batch; the number of micro batches follows from ``global_batch`` and the layout.
        parallel: settings that stay, such as the distributed optimizer.
        gpu_memory: bytes of one GPU.
    """
    plans = []
    for layout, candidate in _candidates(size, parallel, gpus):
        step = work.micro_batch * layout.data
        batch = -(-global_batch // step) * step
        micro_batches = batch // step
        if candidate.virtual_pipeline is not None and micro_batches % layout.pipeline:
            continue
        one = replace(work, num_micro_batches=micro_batches)
        modes = {mode: replace(candidate, recompute=mode, recompute_layers=None) for mode in RECOMPUTE_MODES}
        memory = {mode: predict_memory(size, layout, modes[mode], one) for mode in RECOMPUTE_MODES}
        fitting = [mode for mode in RECOMPUTE_MODES if memory[mode].total + RESERVE_BYTES <= gpu_memory]
        chosen = fitting[0] if fitting else min(RECOMPUTE_MODES, key=lambda mode: memory[mode].total)
        best = _fewest_layers(size, layout, modes[chosen], one, (1 - SLACK) * gpu_memory)
        seconds = predict_seconds(size, layout, best, one, gpus_per_node=gpus_per_node)
        flops = training_flops(size, work.tokens, work.text_tokens, work.num_views) * batch
        taken = predict_memory(size, layout, best, one)
        plans.append(Plan(layout, best, batch, memory, taken, bool(fitting), seconds, flops / seconds / gpus / 1e12))
    return sorted(plans, key=lambda plan: (not plan.fits, -plan.tflops))


def _fewest_layers(
    size: NetworkSize, layout: Layout, parallel: ParallelConfig, work: Workload, gpu_memory: float
) -> ParallelConfig:
    """The same with ``recompute_layers`` as small as fits; as it is where that saves a quarter of them at most."""
    layers = size.num_layers // layout.pipeline
    if parallel.recompute == "none" or parallel.virtual_pipeline is not None:
        return parallel
    some = (replace(parallel, recompute_layers=number) for number in range(1, 3 * layers // 4 + 1))
    fitting = (p for p in some if predict_memory(size, layout, p, work).total + RESERVE_BYTES <= gpu_memory)
    return next(fitting, parallel)


def recommended(plans: list[Plan], global_batch: int) -> Plan | None:
    """The fastest layout that fits with the configured global batch, else the fastest that fits at all.

    Among layouts within 2 % of the fastest, the one that splits the network least is simplest to run.
    """
    fitting = [plan for plan in plans if plan.fits]
    same = [plan for plan in fitting if plan.global_batch == global_batch]
    pool = same or fitting
    if not pool:
        return None
    best = max(plan.tflops for plan in pool)
    close = [plan for plan in pool if plan.tflops >= 0.98 * best]
    return min(close, key=lambda plan: (plan.layout.pipeline, plan.layout.tensor, plan.layout.context, -plan.tflops))


def smallest_machine(
    size: NetworkSize, work: Workload, parallel: ParallelConfig, *, gpu_memory: float, global_batch: int
) -> Plan | None:
    """The recommended layout on the fewest GPUs that hold the network and its global batch.

    Args:
        gpu_memory: bytes of one GPU.

    Returns:
        None when even :data:`MACHINES` of the largest size is too small.
    """
    for gpus in MACHINES:
        plans = make_plans(size, work, parallel, gpus=gpus, gpu_memory=gpu_memory, global_batch=global_batch)
        best = recommended([plan for plan in plans if plan.global_batch == global_batch], global_batch)
        if best is not None:
            return best
    return None


def _candidates(size: NetworkSize, parallel: ParallelConfig, gpus: int) -> Iterator[tuple[Layout, ParallelConfig]]:
    for layout in valid_layouts(size, gpus):
        base = replace(
            parallel, tensor=layout.tensor, pipeline=layout.pipeline, context=layout.context, context_backend="auto",
            sequence=layout.tensor > 1, virtual_pipeline=None,
        )  # fmt: skip
        yield layout, base
        if layout.pipeline > 1:
            for chunks in divisors(size.num_layers // layout.pipeline)[1:2]:
                yield layout, replace(base, virtual_pipeline=chunks)


def adapter_parameters(size: NetworkSize, rank: int, targets: list[str]) -> int:
    """Trained parameters of one layer with low-rank adapters on ``targets`` (names of diffusers' transformer)."""
    d, text = size.hidden_size, size.text_width
    features = {
        "to_q": 4 * d, "to_k": 3 * d + text, "to_v": 3 * d + text, "to_out.0": 4 * d,
        "ff.net.0.proj": 5 * d, "ff.net.2": 5 * d,
    }  # fmt: skip
    return rank * sum(features.get(target, 0) for target in targets)


_UNITS = {"gb": 1e9, "gib": 2.0**30, "g": 1e9, "tb": 1e12, "mb": 1e6, "mib": 2.0**20}


def parse_memory(text: str) -> float:
    """``80GB`` or ``139GiB`` -> bytes; InputError shows the expected form."""
    match = re.fullmatch(r"\s*([0-9]+\.?[0-9]*|\.[0-9]+)\s*([a-zA-Z]+)\s*", text)
    if not match or match[2].lower() not in _UNITS:
        raise InputError(f"gpu_memory={text[:40]!r}: expected a number with a unit, for example 80GB or 139GiB")
    size = float(match[1]) * _UNITS[match[2].lower()]
    if not 0 < size <= LARGEST_MEMORY:
        raise InputError(f"gpu_memory={text[:40]!r}: expected more than 0 and at most {LARGEST_MEMORY:g} bytes")
    return size
