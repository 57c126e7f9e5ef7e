"""One training run, from a configuration to checkpoints."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from nemo_cosmos.config import PREVIOUS, TrainConfig, TrainerConfig
from nemo_cosmos.data.positions import LatentShape
from nemo_cosmos.data.record import refuse_other_data
from nemo_cosmos.errors import InputError
from nemo_cosmos.interrupts import Interrupts, ending_on_signals
from nemo_cosmos.models.dit import CosmosDiT, DiTConfig, LayerOptions, transformer_config
from nemo_cosmos.models.dit.lora import LoraSpec
from nemo_cosmos.parallel.context import pipeline_rows
from nemo_cosmos.parallel.layout import NetworkShape, validate_layout
from nemo_cosmos.precision import long_name
from nemo_cosmos.run_folder import alone_in, is_first, name_newest, remove_temporaries, write_config
from nemo_cosmos.training.deterministic import deterministic_kernels, refuse_nondeterministic
from nemo_cosmos.training.initial_weights import check_initial_weights
from nemo_cosmos.training.lora import adapters_to_train
from nemo_cosmos.training.objective import check_objective, training_objective
from nemo_cosmos.training.resume import checkpoint_to_resume, refuse_other_network
from nemo_cosmos.training.samples import Samples, open_samples, refuse_packing, tell_shapes
from nemo_cosmos.upstream.run import adapted_upstream

logger = logging.getLogger(__name__)


def train(cfg: TrainConfig, *, callbacks: Sequence[Any] = ()) -> None:
    """Train as ``cfg`` says; under torchrun, or alone in this process.

    Resumes from the newest checkpoint of ``cfg.output_dir``. ``callbacks`` are Lightning callbacks that run beside
    this package's own. SIGTERM, SIGINT and SIGUSR1 end the process while it trains, after a save.

    Raises:
        InputError: the configuration, the data or the layout does not fit; raised before any process group is made.
    """
    warnings.filterwarnings("ignore", module="megatron|lightning|nemo")
    world_size = launched_processes(cfg.trainer)
    rope = {"rope_table_dtype": long_name(cfg.model.rope_table_dtype)}
    dit = DiTConfig.preset(cfg.model.preset, **{**rope, **cfg.model.overrides})
    shape = NetworkShape(dit.num_layers, dit.num_attention_heads)
    validate_layout(
        cfg.parallel,
        shape,
        world_size=world_size,
        micro_batch=cfg.data.micro_batch,
        global_batch=cfg.data.global_batch,
    )
    check_objective(cfg.objective, dit)
    refuse_nondeterministic(cfg)
    refuse_packing(cfg)
    samples = open_samples(cfg, dit)
    tell_shapes(samples, cfg.data)
    folder = Path(cfg.output_dir)
    resume_from = checkpoint_to_resume(cfg, folder / "checkpoints")
    lora = adapters_to_train(cfg, folder / "checkpoints", resuming=resume_from is not None)
    if resume_from is None:
        check_initial_weights(cfg, dit)
    else:
        refuse_other_data(folder, samples.record, allow_change=cfg.data.allow_change)
        refuse_other_network(cfg, dit, resume_from)
    deterministic = deterministic_kernels(cfg.trainer.deterministic)
    with ending_on_signals() as interrupts, alone_in(folder), deterministic:
        if is_first():
            remove_temporaries(folder)
        if resume_from is not None and is_first():
            name_newest(resume_from)
        with adapted_upstream() as on_cpu:
            _fit(cfg, dit, samples, folder, resume_from, lora, callbacks, interrupts, on_cpu=on_cpu)


def launched_processes(trainer: TrainerConfig) -> int:
    """How many processes torchrun (or Slurm through it) started; one without a launcher.

    Raises:
        InputError: ``trainer.devices`` or ``trainer.num_nodes`` is set and says otherwise.
    """
    world_size = int(os.environ.get("WORLD_SIZE", "1"))
    per_node = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    if trainer.devices not in (None, per_node) or trainer.num_nodes not in (None, world_size // per_node):
        nodes = f" --nnodes={trainer.num_nodes}" if trainer.num_nodes not in (None, 1) else ""
        raise InputError(
            f"trainer.devices={trainer.devices} and trainer.num_nodes={trainer.num_nodes}, but {per_node} processes "
            f"run on each of {world_size // per_node} nodes; start torchrun --nproc_per_node="
            f"{trainer.devices or per_node}{nodes} -m nemo_cosmos train ..., or leave both unset"
        )
    return world_size


def _fit(
    cfg: TrainConfig,
    dit: DiTConfig,
    samples: Samples,
    folder: Path,
    resume_from: Path | None,
    lora: LoraSpec | None,
    callbacks: Sequence[Any],
    interrupts: Interrupts,
    *,
    on_cpu: bool,
) -> None:
    if on_cpu and cfg.trainer.precision == "bf16":
        logger.warning(
            "trainer.precision=bf16 without a GPU: most CPUs compute in bf16 many times slower than in fp32"
        )
    _single_process_environment()
    # Imported within the adapted libraries: these modules look at CUDA when they load.
    from lightning.pytorch.loggers import TensorBoardLogger
    from lightning.pytorch.plugins.environments import TorchElasticEnvironment
    from nemo import lightning as nl

    from nemo_cosmos.training.bad_steps import BadStepsCallback
    from nemo_cosmos.training.callbacks import EmaCallback, MetricsCallback
    from nemo_cosmos.training.data import CosmosDataModule
    from nemo_cosmos.training.model import CosmosModule, NetworkOptions
    from nemo_cosmos.training.optimizer import CosmosOptimizerModule
    from nemo_cosmos.training.saving import CheckpointCallback
    from nemo_cosmos.training.signals import SignalCallback
    from nemo_cosmos.training.start import SetUpCallback
    from nemo_cosmos.training.strategy import build_strategy
    from nemo_cosmos.upstream.nemo import leave_signals_alone

    dtype = torch.bfloat16 if cfg.trainer.precision == "bf16" else torch.float32
    parallel = cfg.parallel
    transformer = transformer_config(
        dit,
        dtype=dtype,
        tensor_model_parallel_size=parallel.tensor,
        pipeline_model_parallel_size=parallel.pipeline,
        virtual_pipeline_model_parallel_size=parallel.virtual_pipeline,
        context_parallel_size=parallel.context,
        sequence_parallel=parallel.sequence,
        # Batched exchanges of the interleaved schedule mix up their messages between two stages.
        overlap_p2p_comm=parallel.virtual_pipeline is not None,
        batch_p2p_comm=parallel.virtual_pipeline is None,
        # Stages tell each other the length of a pack; buckets have one length a step, which all of them know.
        variable_seq_lengths=cfg.data.packing,
        # Without experts of no use; Megatron refuses varying lengths with its default.
        moe_token_dispatcher_type="alltoall",
    )
    options = NetworkOptions(
        dit=dit,
        objective=cfg.objective,
        layer=LayerOptions(parallel.context_backend, parallel.recompute, parallel.recompute_layers),
        seed=cfg.seed,
        initialise=resume_from is None and cfg.model.init_from is None,
        lora=lora,
    )
    module = CosmosModule(options, transformer)
    optimizer = CosmosOptimizerModule(cfg.optimizer, dtype=dtype, distributed=parallel.distributed_optimizer)
    optimizer.connect(module)
    times = training_objective(cfg.objective, dit).times

    def rows(shape: LatentShape) -> int:
        grid = dit.token_grid(*shape[1:])
        return pipeline_rows(
            grid.num_tokens,
            CosmosDiT.ROWS_PER_TIME * times(grid.frames),
            context=parallel.context,
            tensor=parallel.tensor,
            sequence=parallel.sequence,
        )

    def tokens(step: int) -> int:
        return sum(dit.token_grid(*shape[1:]).num_tokens for shape in data.shapes(step))

    data = CosmosDataModule(samples, cfg.data, seed=cfg.seed, rows=rows)
    ema = EmaCallback(cfg.ema.rate) if cfg.ema.enabled else None
    checkpoint = CheckpointCallback(
        folder / "checkpoints", cfg.checkpoint, has_average=ema is not None, base=cfg.model.init_from
    )
    metrics = MetricsCallback(
        folder,
        tokens=tokens,
        every_n_steps=cfg.trainer.log_every_n_steps,
        max_steps=cfg.trainer.max_steps,
        encoder=samples.encoder,
    )
    if int(os.environ.get("RANK", "0")) == 0:
        folder.mkdir(parents=True, exist_ok=True)
        write_config(folder, cfg, resuming=resume_from is not None)
        samples.record.save(folder)
    trainer = nl.Trainer(
        accelerator="cpu" if on_cpu else "gpu",
        devices=int(os.environ.get("LOCAL_WORLD_SIZE", "1")),
        num_nodes=int(os.environ.get("WORLD_SIZE", "1")) // int(os.environ.get("LOCAL_WORLD_SIZE", "1")),
        strategy=build_strategy(
            parallel,
            dtype=dtype,
            verify=cfg.checkpoint.verify,  # type: ignore[arg-type]
            previous=cfg.resume == PREVIOUS,
        ),
        # Under Slurm, too, torchrun or nobody has started the processes; its own environment would look for
        # checkpoints of another format in the working directory.
        plugins=[TorchElasticEnvironment()],
        default_root_dir=str(folder),
        max_steps=cfg.trainer.max_steps,
        max_epochs=-1,
        limit_val_batches=0,
        num_sanity_val_steps=0,
        callbacks=[
            SetUpCallback(cfg, ema, resuming=resume_from is not None),
            *([ema] if ema else []),
            metrics,
            BadStepsCallback(optimizer.bad_steps, cfg.trainer.max_bad_steps),
            checkpoint,
            SignalCallback(checkpoint, interrupts),
            *callbacks,
        ],
        logger=TensorBoardLogger(folder, name="tensorboard", version=""),
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
    )
    leave_signals_alone(trainer)
    try:
        trainer.fit(module, data, ckpt_path=resume_from)
    finally:
        interrupts.stop_deferring()
        data.close()


def _single_process_environment() -> None:
    for name, value in {
        "RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1",
    }.items():  # fmt: skip
        os.environ.setdefault(name, value)
    if "MASTER_PORT" not in os.environ:
        os.environ["MASTER_PORT"] = str(_free_port())


def _free_port() -> int:
    import socket

    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return server.getsockname()[1]
