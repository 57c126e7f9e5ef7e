"""Time of a training step, estimated from arithmetic, traffic and the pipeline's bubble.

The rates were measured on H200 GPUs (`docs/gpu_results.md`); other GPUs differ in scale more than in order, so the
planner shows speeds relative to each other. Traffic between nodes was not measured: its rate is an assumption.
"""

from __future__ import annotations

from nemo_cosmos.config import ParallelConfig
from nemo_cosmos.parallel.layout import Layout
from nemo_cosmos.planning.cost import NetworkSize, layer_forward_flops
from nemo_cosmos.planning.memory import Workload, exchanges_heads, stage_parameters

MATRIX_RATE = 720e12
"""Operations a second of matrix products, forward and backward."""
ATTENTION_RATE, ATTENTION_FORWARD_RATE = 467e12, 616e12
"""Model operations a second of attention: forward and backward with 3 × the forward count; forward alone."""
ELEMENTWISE_SECONDS = 7.1e-11
"""Per element of a tokens × width tensor and layer, forward and backward."""
NODE_RATE, NETWORK_RATE = 120e9, 40e9
"""Bytes a second that a GPU sends inside a node (measured, with the copies around it) and between nodes (assumed)."""
OPTIMIZER_SECONDS, STEP_SECONDS = 3e-11, 5e-3
"""Per parameter that a GPU updates and averages; of everything else once a step."""


def predict_seconds(
    size: NetworkSize, layout: Layout, parallel: ParallelConfig, work: Workload, *, gpus_per_node: int = 8
) -> float:
    """Seconds of one optimizer step."""

    def rate(inner: int, group: int) -> float:
        # Megatron numbers ranks with tensor innermost, then context, data, pipeline.
        return NODE_RATE if inner * group <= gpus_per_node else NETWORK_RATE

    tensor, context = layout.tensor, layout.context
    tensor_rate, context_rate = rate(1, tensor), rate(tensor, context)
    data_rate = rate(tensor, context * layout.data)
    samples = work.micro_batch
    forward = layer_forward_flops(size, work.tokens, work.text_tokens, work.num_views)
    matrices, attention = (samples * f / (tensor * context) for f in forward)
    elements = samples * work.tokens * size.hidden_size / context
    elementwise = ELEMENTWISE_SECONDS * elements * (1 / tensor if parallel.sequence else (1 + 1 / tensor) / 2)
    layer = 3 * matrices / MATRIX_RATE + 3 * attention / ATTENTION_RATE + elementwise
    if parallel.recompute != "none":
        again = matrices / MATRIX_RATE + elementwise / 3
        if parallel.recompute == "full":
            again += attention / ATTENTION_FORWARD_RATE
        layers = size.num_layers // layout.pipeline
        layer += again * min(parallel.recompute_layers or layers, layers) / layers
    unit = elements * work.value_bytes
    share = (tensor - 1) / tensor
    # Without sequence parallelism 6 all-reduces a layer (twice the tensor each), with it 9 all-gathers and 6
    # reduce-scatters.
    layer += unit * share * (15 if parallel.sequence else 12) / tensor_rate
    share = (context - 1) / context
    if exchanges_heads(size, layout, parallel):
        layer += 8 * unit / tensor * share / context_rate
    else:
        layer += 4 * unit * context / tensor * share / context_rate
    layers = size.num_layers // layout.pipeline
    chunks = parallel.virtual_pipeline or 1
    bubble = (layout.pipeline - 1) / chunks
    seconds = layer * layers * (work.num_micro_batches + bubble)
    if layout.pipeline > 1:
        hand_over = unit / (tensor if parallel.sequence else 1) / rate(tensor * context * layout.data, layout.pipeline)
        seconds += 2 * hand_over * (work.num_micro_batches + layout.pipeline - 1) * chunks
    parameters = stage_parameters(size, layout, 0)
    if work.adapter_parameters is not None:
        parameters = work.adapter_parameters * layers
    replicas = layout.data * context
    reduced = parameters * (4 + 2) * (replicas - 1) / replicas
    owned = parameters / (replicas if parallel.distributed_optimizer else 1)
    return seconds + reduced / data_rate + owned * OPTIMIZER_SECONDS + STEP_SECONDS
