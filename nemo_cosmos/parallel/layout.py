"""Whether a parallel layout is possible, said before any process group exists."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from importlib.util import find_spec

from nemo_cosmos.config import ParallelConfig
from nemo_cosmos.errors import InputError


@dataclass(frozen=True)
class NetworkShape:
    """The numbers of a network that a layout must divide."""

    num_layers: int
    num_attention_heads: int


@dataclass(frozen=True)
class Layout:
    """A valid layout of ``world_size`` processes."""

    tensor: int
    pipeline: int
    context: int
    data: int

    def __str__(self) -> str:
        sizes = (("tensor", self.tensor), ("pipeline", self.pipeline), ("context", self.context))
        split = " ".join(f"parallel.{name}={size}" for name, size in sizes if size > 1)
        return f"{split or 'no splitting'} ({self.data} replica{'s' if self.data > 1 else ''})"


def validate_layout(
    parallel: ParallelConfig, shape: NetworkShape, *, world_size: int, micro_batch: int = 1, global_batch: int = 1
) -> Layout:
    """The data-parallel size that the other sizes leave.

    Raises:
        InputError: the sizes do not divide the world, the heads, the layers or the batch; names what would, and the
            valid layouts nearest to the one asked for.
    """
    try:
        return _check(parallel, shape, world_size=world_size, micro_batch=micro_batch, global_batch=global_batch)
    except InputError as error:
        near = nearest_layouts(parallel, shape, world_size=world_size, batch=(micro_batch, global_batch))
        hint = f". Valid near it: {'; '.join(map(str, near))}" if near else ""
        raise InputError(f"{error}{hint}") from None


def valid_layouts(shape: NetworkShape, world_size: int) -> list[Layout]:
    """Every split over tensor, pipeline and context ranks, ignoring the batch."""
    return [
        Layout(tensor, pipeline, context, world_size // (tensor * pipeline * context))
        for tensor in divisors(math.gcd(world_size, shape.num_attention_heads))
        for pipeline in divisors(math.gcd(world_size // tensor, shape.num_layers))
        for context in divisors(world_size // tensor // pipeline)
    ]


def nearest_layouts(
    parallel: ParallelConfig, shape: NetworkShape, *, world_size: int, batch: tuple[int, int], count: int = 3
) -> list[Layout]:
    """The valid layouts that differ least from ``parallel``, for a (micro batch, global batch)."""

    def distance(layout: Layout) -> float:
        wanted = (parallel.tensor, parallel.pipeline, parallel.context)
        found = (layout.tensor, layout.pipeline, layout.context)
        return sum(abs(math.log2(a / b)) for a, b in zip(found, wanted, strict=True))

    micro, total = batch
    possible = []
    for layout in valid_layouts(shape, world_size):
        adjusted = replace(
            parallel, tensor=layout.tensor, pipeline=layout.pipeline, context=layout.context,
            sequence=parallel.sequence and layout.tensor > 1,
        )  # fmt: skip
        try:
            _check(adjusted, shape, world_size=world_size, micro_batch=micro, global_batch=total)
        except InputError:
            continue
        possible.append(layout)
    return sorted(possible, key=distance)[:count]


def _check(
    parallel: ParallelConfig, shape: NetworkShape, *, world_size: int, micro_batch: int, global_batch: int
) -> Layout:
    heads, layers = shape.num_attention_heads, shape.num_layers
    if heads % parallel.tensor:
        raise InputError(
            f"parallel.tensor={parallel.tensor} does not divide the network's {heads} attention heads; "
            f"possible sizes: {_divisors(heads)}"
        )
    model = parallel.tensor * parallel.pipeline * parallel.context
    if world_size % model:
        raise InputError(
            f"{world_size} processes are not divisible by parallel.tensor={parallel.tensor} × parallel.pipeline="
            f"{parallel.pipeline} × parallel.context={parallel.context} = {model}; start a multiple of {model} "
            f"processes, or choose sizes whose product divides {world_size}: {_divisors(world_size)}"
        )
    if parallel.sequence and parallel.tensor == 1:
        raise InputError("parallel.sequence=true has no effect with parallel.tensor=1; set parallel.tensor above 1")
    if layers % parallel.pipeline:
        raise InputError(
            f"parallel.pipeline={parallel.pipeline} does not divide the network's {layers} layers; "
            f"possible sizes: {_divisors(layers)}"
        )
    chunks = parallel.virtual_pipeline
    if chunks is not None:
        if parallel.pipeline == 1:
            raise InputError("parallel.virtual_pipeline has no effect with parallel.pipeline=1; unset it")
        if (layers // parallel.pipeline) % chunks:
            raise InputError(
                f"parallel.virtual_pipeline={chunks} does not divide the {layers // parallel.pipeline} layers of a "
                f"stage; possible sizes: {_divisors(layers // parallel.pipeline)}"
            )
    if parallel.context_backend == "all_to_all" and (heads // parallel.tensor) % parallel.context:
        raise InputError(
            f"parallel.context_backend=all_to_all needs parallel.context={parallel.context} to divide the "
            f"{heads // parallel.tensor} heads of a tensor rank ({_divisors(heads // parallel.tensor)}); use auto or "
            "all_gather, which have no such limit"
        )
    if parallel.context_backend == "transformer_engine" and find_spec("transformer_engine") is None:
        raise InputError(
            "parallel.context_backend=transformer_engine: Transformer Engine is not installed; use auto, which needs "
            "nothing further, or pip install 'nemo_cosmos[gpu]'"
        )
    if parallel.recompute_layers is not None and parallel.recompute == "none":
        raise InputError("parallel.recompute_layers has no effect with parallel.recompute=none")
    data = world_size // model
    if global_batch % (micro_batch * data):
        raise InputError(
            f"data.global_batch={global_batch} is not divisible by data.micro_batch={micro_batch} × {data} "
            f"data-parallel replicas; use a multiple of {micro_batch * data}"
        )
    steps = global_batch // (micro_batch * data)
    if chunks is not None and steps % parallel.pipeline:
        raise InputError(
            f"the interleaved schedule needs micro batches per step ({steps}) divisible by parallel.pipeline="
            f"{parallel.pipeline}; use data.global_batch={micro_batch * data * parallel.pipeline} or a multiple"
        )
    return Layout(parallel.tensor, parallel.pipeline, parallel.context, data)


def divisors(number: int) -> list[int]:
    return [n for n in range(1, number + 1) if number % n == 0]


def _divisors(number: int) -> str:
    return ", ".join(map(str, divisors(number)))
