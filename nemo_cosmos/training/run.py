"""One training run, from a configuration to checkpoints."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from nemo_cosmos.checkpoint.files import iteration_name, latest_step, saved_steps
from nemo_cosmos.config import TrainConfig, dump_config
from nemo_cosmos.data.shards import ShardDataset
from nemo_cosmos.errors import InputError
from nemo_cosmos.models.dit import DiTConfig, LayerOptions, transformer_config
from nemo_cosmos.models.dit.embeddings import TokenGrid
from nemo_cosmos.models.dit.lora import LoraSpec
from nemo_cosmos.parallel.cpu import enable_cpu
from nemo_cosmos.parallel.layout import NetworkShape, validate_layout
from nemo_cosmos.training.lora import adapters_to_train

logger = logging.getLogger(__name__)


def train(cfg: TrainConfig, *, callbacks: Sequence[Any] = ()) -> None:
    """Train as ``cfg`` says; under torchrun, or alone in this process.

    Resumes from the newest checkpoint of ``cfg.output_dir``. ``callbacks`` are Lightning callbacks that run beside
    this package's own.

    Raises:
        InputError: the configuration, the data or the layout does not fit; raised before any process group is made.
    """
    warnings.filterwarnings("ignore", module="megatron|lightning|nemo")
    world_size = int(os.environ.get("WORLD_SIZE", "1"))
    dit = DiTConfig.preset(cfg.model.preset, **{"rope_table_dtype": cfg.model.rope_table_dtype, **cfg.model.overrides})
    shape = NetworkShape(dit.num_layers, dit.num_attention_heads)
    validate_layout(
        cfg.parallel,
        shape,
        world_size=world_size,
        micro_batch=cfg.data.micro_batch,
        global_batch=cfg.data.global_batch,
    )
    source = open_samples(cfg, dit)
    folder = Path(cfg.output_dir)
    resume_from = checkpoint_to_resume(cfg, folder / "checkpoints")
    lora = adapters_to_train(cfg, folder / "checkpoints", resuming=resume_from is not None)
    _fit(cfg, dit, source, folder, resume_from, lora, callbacks)


def open_samples(cfg: TrainConfig, dit: DiTConfig) -> ShardDataset:
    """The shards of ``data.path``, checked against the experiment and the network."""
    source = ShardDataset(cfg.data.path, verify=cfg.data.verify)  # type: ignore[arg-type]
    manifest = source.manifest
    if cfg.data.tokenizer is not None and manifest.tokenizer.name != cfg.data.tokenizer:
        raise InputError(
            f"{cfg.data.path}: these shards were made with the tokenizer {manifest.tokenizer.name!r}, but the "
            f"experiment names data.tokenizer={cfg.data.tokenizer!r}; prepare the clips again with that tokenizer"
        )
    shape = manifest.latent_shape
    if shape[0] != dit.in_channels:
        raise InputError(f"{cfg.data.path}: latents have {shape[0]} channels, the network takes {dit.in_channels}")
    if manifest.text_width != dit.text_width:
        raise InputError(
            f"{cfg.data.path}: text embeddings are {manifest.text_width} wide, the network takes {dit.text_width} "
            "(model.overrides.text_width); prepare the clips again with the text encoder that belongs to the network"
        )
    return source


def checkpoint_to_resume(cfg: TrainConfig, folder: Path) -> Path | None:
    """The newest complete checkpoint of the run, None for a new run."""
    step = latest_step(folder)
    if step is None:
        return None
    if not cfg.resume:
        raise InputError(
            f"{folder} holds a checkpoint of step {step} and resume=false; set resume=true, or another output_dir"
        )
    path = folder / iteration_name(step)
    if not path.is_dir():
        raise InputError(
            f"{path}: named by latest_checkpoint.txt but not there; write one of {saved_steps(folder)} into that file"
        )
    return path


def token_grid(dit: DiTConfig, latent_shape: tuple[int, ...]) -> TokenGrid:
    """Tokens of one sample."""
    _, frames, height, width = latent_shape
    if height % dit.patch_size or width % dit.patch_size:
        raise InputError(f"latents of {height}×{width} do not divide into patches of {dit.patch_size}")
    return TokenGrid(frames, height // dit.patch_size, width // dit.patch_size)


def _fit(
    cfg: TrainConfig,
    dit: DiTConfig,
    source: ShardDataset,
    folder: Path,
    resume_from: Path | None,
    lora: LoraSpec | None,
    callbacks: Sequence[Any],
) -> None:
    on_cpu = enable_cpu()
    if on_cpu and cfg.trainer.precision != "fp32":
        raise InputError(f"trainer.precision={cfg.trainer.precision} needs a GPU; use trainer.precision=fp32 here")
    _single_process_environment()
    # Imported after the CPU is set up: these modules look at CUDA when they load.
    from lightning.pytorch.loggers import TensorBoardLogger
    from nemo import lightning as nl

    from nemo_cosmos.training.callbacks import CheckpointCallback, EmaCallback, MetricsCallback
    from nemo_cosmos.training.data import CosmosDataModule
    from nemo_cosmos.training.model import CosmosModule, NetworkOptions
    from nemo_cosmos.training.optimizer import CosmosOptimizerModule
    from nemo_cosmos.training.start import SetUpCallback
    from nemo_cosmos.training.strategy import build_strategy
    from nemo_cosmos.training.upstream import patch_nemo

    patch_nemo(on_cpu=on_cpu)
    for name in ("lightning.pytorch", "nemo_logger"):
        logging.getLogger(name).setLevel(logging.WARNING)
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
    )
    options = NetworkOptions(
        dit=dit,
        diffusion=cfg.diffusion,
        layer=LayerOptions(parallel.context_backend, parallel.recompute, parallel.recompute_layers),
        seed=cfg.seed,
        initialise=resume_from is None and cfg.model.init_from is None,
        lora=lora,
    )
    module = CosmosModule(options, transformer)
    CosmosOptimizerModule(cfg.optimizer, dtype=dtype, distributed=parallel.distributed_optimizer).connect(module)
    grid = token_grid(dit, source.manifest.latent_shape)
    data = CosmosDataModule(source, cfg.data, seed=cfg.seed, sequence_length=_sequence_length(grid, cfg))
    ema = EmaCallback(cfg.ema.rate) if cfg.ema.enabled else None
    checkpoint = CheckpointCallback(folder / "checkpoints", cfg.checkpoint, ema, base=cfg.model.init_from)
    metrics = MetricsCallback(
        folder,
        tokens_per_step=grid.num_tokens * cfg.data.global_batch,
        every_n_steps=cfg.trainer.log_every_n_steps,
        max_steps=cfg.trainer.max_steps,
    )
    if int(os.environ.get("RANK", "0")) == 0:
        folder.mkdir(parents=True, exist_ok=True)
        temporary = folder / ".config.yaml.tmp"
        temporary.write_text(dump_config(cfg))
        os.replace(temporary, folder / "config.yaml")
    trainer = nl.Trainer(
        accelerator="cpu" if on_cpu else "gpu",
        devices=int(os.environ.get("LOCAL_WORLD_SIZE", "1")),
        num_nodes=int(os.environ.get("WORLD_SIZE", "1")) // int(os.environ.get("LOCAL_WORLD_SIZE", "1")),
        strategy=build_strategy(parallel, dtype=dtype),
        max_steps=cfg.trainer.max_steps,
        max_epochs=-1,
        limit_val_batches=0,
        num_sanity_val_steps=0,
        callbacks=[SetUpCallback(cfg, ema), *([ema] if ema else []), metrics, checkpoint, *callbacks],
        logger=TensorBoardLogger(folder, name="tensorboard", version=""),
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
    )
    trainer.fit(module, data, ckpt_path=resume_from)


def _sequence_length(grid: TokenGrid, cfg: TrainConfig) -> int:
    """The length by which Megatron's schedules size hidden states: see ``CosmosDiT.pipeline_sequence_length``."""
    parallel = cfg.parallel
    parts = parallel.context * (parallel.tensor if parallel.sequence else 1)
    local = -(-grid.num_tokens // parts)
    return (local + 4) * parts


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
