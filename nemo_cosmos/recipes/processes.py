"""Whether a run fits the processes that are to be started for it, said before anything is started."""

from __future__ import annotations

from dataclasses import replace

from nemo_cosmos.config import ParallelConfig, TrainConfig
from nemo_cosmos.errors import InputError
from nemo_cosmos.parallel.layout import Layout, NetworkShape, validate_layout
from nemo_cosmos.training.tokenizer.config import TokenizerTrainConfig


def check_processes(config: TrainConfig | TokenizerTrainConfig, nodes: int, per_node: int) -> Layout | None:
    """Hold the batch and the layout of a run to ``nodes`` × ``per_node`` processes.

    Returns:
        The layout of a world model; None for a tokenizer, which knows data parallelism alone.

    Raises:
        InputError: the layout, the batch, or `trainer.devices` and `trainer.num_nodes` do not fit.
    """
    world_size = nodes * per_node
    if isinstance(config, TokenizerTrainConfig):
        data = config.data
        if data.global_batch % (data.micro_batch * world_size):
            raise InputError(
                f"data.global_batch={data.global_batch} is not a multiple of data.micro_batch={data.micro_batch} × "
                f"{world_size} processes ({nodes} × {per_node}); use a multiple of {data.micro_batch * world_size}"
            )
        return None
    for key, wanted, started in (
        ("trainer.num_nodes", config.trainer.num_nodes, nodes),
        ("trainer.devices", config.trainer.devices, per_node),
    ):
        if wanted not in (None, started):
            raise InputError(
                f"{key}={wanted}, but {per_node} processes are to run on each of {nodes} nodes; leave it unset, or "
                f"start as many"
            )
    from nemo_cosmos.models.dit.config import DiTConfig

    network = DiTConfig.preset(config.model.preset, **config.model.overrides)
    return validate_layout(
        _wherever_it_runs(config.parallel),
        NetworkShape(network.num_layers, network.num_attention_heads),
        world_size=world_size,
        micro_batch=config.data.micro_batch,
        global_batch=config.data.global_batch,
    )


def _wherever_it_runs(parallel: ParallelConfig) -> ParallelConfig:
    """Transformer Engine may be installed there and not here."""
    return replace(parallel, context_backend="auto") if parallel.context_backend == "transformer_engine" else parallel
