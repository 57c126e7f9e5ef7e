"""GPU memory of a training step, predicted from the network's size and the layout.

Parameters are counted exactly. Activations are what the layers keep for the backward pass when their element-wise
parts are compiled; a test compares the count with what autograd really keeps. The prediction is for PyTorch's
allocator; CUDA itself, NCCL and fragmentation come on top (:data:`RESERVE_BYTES`).
"""

from __future__ import annotations

from dataclasses import dataclass

from nemo_cosmos.config import ParallelConfig
from nemo_cosmos.parallel.layout import Layout
from nemo_cosmos.planning.cost import NetworkSize

RESERVE_BYTES = 3 * 2**30
"""CUDA context, NCCL's buffers and fragmentation of the allocator, left free when a layout is said to fit."""

WORKSPACE_BYTES = 64 * 2**20
"""What cuBLAS keeps for the forward and the backward thread."""


@dataclass(frozen=True)
class Workload:
    """What one step works on."""

    tokens: int
    """Tokens of a sample."""
    text_tokens: int = 512
    """Text tokens of a sample, those of all of its views together."""
    num_views: int = 1
    micro_batch: int = 1
    num_micro_batches: int = 1
    value_bytes: int = 2
    """Bytes of a weight and of an activation: 2 in bf16, 4 in fp32."""
    ema: bool = True
    adapter_parameters: int | None = None
    """Trained parameters of one layer with low-rank adapters; None when every weight is trained."""


@dataclass(frozen=True)
class Memory:
    """Bytes on the fullest GPU."""

    weights: float
    gradients: float
    optimizer: float
    ema: float
    activations: float

    @property
    def resident(self) -> float:
        """What stays between steps."""
        return self.weights + self.gradients + self.optimizer + self.ema

    @property
    def total(self) -> float:
        return self.resident + self.activations


def predict_memory(size: NetworkSize, layout: Layout, parallel: ParallelConfig, work: Workload) -> Memory:
    """Memory of the fullest pipeline stage."""
    stages = {_stage(size, layout, parallel, work, stage) for stage in {0, layout.pipeline - 1}}
    return max(stages, key=lambda memory: memory.total)


def _stage(size: NetworkSize, layout: Layout, parallel: ParallelConfig, work: Workload, stage: int) -> Memory:
    parameters = stage_parameters(size, layout, stage)
    trained = parameters
    if work.adapter_parameters is not None:
        # Adapters beside matrices that tensor parallelism splits are split in one of their two factors, about a half.
        trained = work.adapter_parameters * size.num_layers / layout.pipeline * (1 + 1 / layout.tensor) / 2
        parameters += trained
    shards = layout.data * layout.context if parallel.distributed_optimizer else 1
    fp32 = work.value_bytes == 4
    optimizer = trained * (8 if fp32 and not parallel.distributed_optimizer else 12) / shards
    # Adam makes one temporary tensor of the size of a moment.
    step = 4 * trained / shards
    return Memory(
        weights=parameters * work.value_bytes,
        gradients=trained * 4,
        optimizer=optimizer,
        ema=trained * 4 / shards if work.ema else 0.0,
        activations=max(step, _activations(size, layout, parallel, work, stage)) + WORKSPACE_BYTES,
    )


def stage_parameters(size: NetworkSize, layout: Layout, stage: int) -> float:
    """Parameters on one GPU of a pipeline stage."""
    split = size.tensor_parallel_parameters
    layer = split / layout.tensor + size.layer_parameters - split
    out = layer * size.num_layers / layout.pipeline + size.position_parameters
    if stage == 0:
        out += size.entry_parameters
    if stage == layout.pipeline - 1:
        out += size.exit_parameters
    return out


@dataclass(frozen=True)
class LayerActivations:
    """Bytes that one layer keeps for one micro batch."""

    none: float
    selective: float
    full: float
    mlp_gradient: float
    """Gradient of the MLP's inner tensor, the largest of the backward pass."""
    recomputed_part: dict[str, float]
    """What the backward pass of the layer brings back, by recompute mode."""


def layer_activations(size: NetworkSize, layout: Layout, parallel: ParallelConfig, work: Workload) -> LayerActivations:
    """Activations of a layer, by recompute mode."""
    width = work.micro_batch * size.hidden_size * work.value_bytes
    parts = layout.context * (layout.tensor if parallel.sequence else 1)
    tokens = -(-work.tokens // parts) * parts
    # Tensors outside the split matrices, and tensors between them.
    local = tokens // parts * width
    split = tokens // layout.context * width / layout.tensor
    text = 4 * work.text_tokens * width / layout.tensor
    attention_out, keys_values = split, 2 * split
    if layout.context > 1:
        if exchanges_heads(size, layout, parallel):
            attention_out = 2 * split  # before and after the exchange
        else:
            keys_values = 2 * work.tokens * width / layout.tensor
    attention = split + keys_values + attention_out
    # Local: sum with the position, four normed or projected sums, two residuals, three outputs. Split: the 3 tensors
    # before the rotation, query before and after its norm and the output of cross attention, twice 4 of the MLP.
    none = 9 * local + 14 * split + attention + text
    position = local if size.position else 0.0
    after_attention = 7 * local + 11 * split + text
    return LayerActivations(
        none=none,
        selective=local + position + attention,
        full=local,
        mlp_gradient=4 * split + local,
        recomputed_part={"none": 0.0, "selective": after_attention, "full": none},
    )


def exchanges_heads(size: NetworkSize, layout: Layout, parallel: ParallelConfig) -> bool:
    """Whether context parallelism is by all-to-all; else keys and values are gathered."""
    if parallel.context_backend == "auto":
        return (size.num_attention_heads // layout.tensor) % layout.context == 0
    return parallel.context_backend == "all_to_all"


def _activations(size: NetworkSize, layout: Layout, parallel: ParallelConfig, work: Workload, stage: int) -> float:
    layer = layer_activations(size, layout, parallel, work)
    layers = size.num_layers // layout.pipeline
    recomputed = 0
    if parallel.recompute != "none":
        recomputed = layers if parallel.recompute_layers is None else min(layers, parallel.recompute_layers)
    kept = {"none": layer.none, "selective": layer.selective, "full": layer.full}[parallel.recompute]
    of_layers = recomputed * kept + (layers - recomputed) * layer.none
    parts = layout.context * (layout.tensor if parallel.sequence else 1)
    width = size.hidden_size * work.value_bytes
    local = -(-work.tokens // parts) * work.micro_batch * width
    last = stage == layout.pipeline - 1
    # The last stage keeps the final norm's input and output, another one what it sent; later ones what they received.
    of_layers += (2 if last else 1) * local + (local if stage > 0 else 0)
    in_flight: float = min(work.num_micro_batches, layout.pipeline - stage)
    if parallel.virtual_pipeline and in_flight > 1:
        chunks = layout.pipeline * parallel.virtual_pipeline
        in_flight = layout.pipeline * (1 + (layout.pipeline - 1) / chunks)
    out = in_flight * of_layers
    position = work.tokens * size.hidden_size * 4 if size.position else 0
    gradients = layer.mlp_gradient - (3 * local if last else local)
    if recomputed:
        # The position table stays until the last layer has been computed again.
        out += layer.recomputed_part[parallel.recompute] + position + max(0.0, gradients)
    else:
        out += max(position, gradients)
    if parts > 1:
        # Whole-sequence tensors beside the local ones: gathered inputs, gradients before they are cut.
        out += work.tokens * width
    return out
