"""Whether an experiment can start on this machine: settings, layout, memory, data, weights and output folder."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nemo_cosmos.doctor.finding import Finding
from nemo_cosmos.doctor.machine import free_space
from nemo_cosmos.errors import InputError
from nemo_cosmos.tiny import located

if TYPE_CHECKING:
    from nemo_cosmos.config import TrainConfig
    from nemo_cosmos.models.dit.config import DiTConfig
    from nemo_cosmos.training.samples import Samples
    from nemo_cosmos.training.tokenizer.config import TokenizerTrainConfig

SAVED_BYTES = 24
"""Of a trained parameter in one save in bf16: weight, fp32 copy, two moments, average, and both exported files."""


def resolve(overrides: list[str]) -> TrainConfig | TokenizerTrainConfig:
    """The settings of `experiment=NAME` and what differs from it, of a world model or a tokenizer.

    Raises:
        InputError: a wrong key or value, or no experiment.
    """
    from nemo_cosmos.config import TrainConfig, experiment_names, load_config

    chosen = [word.partition("=")[2] for word in overrides if word.partition("=")[0] == "experiment"]
    if chosen and chosen[-1] in experiment_names("tokenizer_train"):
        from nemo_cosmos.training.tokenizer.config import TokenizerTrainConfig

        return load_config(TokenizerTrainConfig, overrides, root="tokenizer_train")
    return load_config(TrainConfig, overrides)


def check_experiment(config: TrainConfig | TokenizerTrainConfig) -> Iterator[Finding]:
    """Everything that `train` looks at before it starts, and whether the machine is large enough."""
    from nemo_cosmos.config import TrainConfig

    yield from _world_model(config) if isinstance(config, TrainConfig) else _tokenizer(config)


def _world_model(config: TrainConfig) -> Iterator[Finding]:
    from nemo_cosmos.models.dit.config import DiTConfig

    network = DiTConfig.preset(config.model.preset, **config.model.overrides)
    yield _tried("settings", lambda: _settings(config, network))
    yield _tried("layout", lambda: _layout(config, network))
    samples: list[Samples] = []
    yield _tried("dataset", lambda: _dataset(config, network, samples))
    yield _memory(config, samples[0] if samples else None)
    yield _tried("weights", lambda: _weights(config, network))
    yield _output(config)


def _tried(subject: str, look: Callable[[], str]) -> Finding:
    """What a check says, or how it fails."""
    try:
        return Finding("ok", subject, look())
    except (InputError, OSError) as error:
        return Finding("fail", subject, str(error))


def _settings(config: TrainConfig, network: DiTConfig) -> str:
    from nemo_cosmos.training.deterministic import refuse_nondeterministic
    from nemo_cosmos.training.objective import check_objective
    from nemo_cosmos.training.samples import refuse_packing

    check_objective(config.objective, network)
    refuse_nondeterministic(config)
    refuse_packing(config)
    what = f"adapters of rank {config.lora.rank}" if config.lora.enabled else "all weights"
    return f"{config.experiment} trains {what} of {config.model.preset} for {config.trainer.max_steps} steps"


def processes_here(config: TrainConfig) -> int:
    """What training is started with: `trainer.devices`, or one process per GPU, on each of `trainer.num_nodes`.

    Without a GPU it is as many as the layout splits a sample and the network over.
    """
    import torch

    nodes = config.trainer.num_nodes or 1
    if config.trainer.devices is not None:
        return config.trainer.devices * nodes
    if torch.cuda.is_available():
        return torch.cuda.device_count() * nodes
    return config.parallel.tensor * config.parallel.pipeline * config.parallel.context


def _layout(config: TrainConfig, network: DiTConfig) -> str:
    import torch

    from nemo_cosmos.parallel.layout import NetworkShape, validate_layout

    count, nodes = processes_here(config), config.trainer.num_nodes or 1
    here = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if here and count // nodes > here:
        raise InputError(f"trainer.devices={config.trainer.devices}, but this machine has {here} GPUs; leave it unset")
    layout = validate_layout(
        config.parallel,
        NetworkShape(network.num_layers, network.num_attention_heads),
        world_size=count,
        micro_batch=config.data.micro_batch,
        global_batch=config.data.global_batch,
    )
    where = f"{count} {'GPUs' if here else 'processes on the CPU'}"
    start = f": torchrun --nproc_per_node={count // nodes}" if count > 1 else ""
    return f"{layout} on {where if count > 1 else where.replace('GPUs', 'GPU').replace('processes', 'process')}{start}"


def _dataset(config: TrainConfig, network: DiTConfig, found: list[Samples]) -> str:
    from nemo_cosmos.training.samples import open_samples

    data: Any = config.data
    if data.mode == "cached" and data.verify == "auto":
        data = replace(data, verify="size")  # Training reads every byte; here it would take minutes.
    try:
        samples = open_samples(replace(config, data=data), network)
    except InputError as error:
        if Path(config.data.path).exists():
            raise
        raise InputError(
            f"data.path={config.data.path} is not there: make it with nemo-cosmos prepare, as the comment of "
            f"conf/experiment/{config.experiment}.yaml shows, or name another with data.path="
        ) from error
    found.append(samples)
    shapes = f"{len(samples.buckets)} shapes up to " if samples.buckets else ""
    return f"{len(samples.source)} samples in {config.data.path}, latents of {shapes}{samples.latent_shape}"


def _memory(config: TrainConfig, samples: Samples | None) -> Finding:
    """Predicted memory of the fullest process against that of the smallest GPU, or of this machine without one."""
    import torch

    from nemo_cosmos.commands.experiments import prepared_latent
    from nemo_cosmos.commands.plan import workload_of
    from nemo_cosmos.parallel.layout import Layout
    from nemo_cosmos.planning.memory import RESERVE_BYTES, predict_memory

    if samples is not None:
        views = max((bucket.num_views for bucket in samples.buckets), default=samples.num_views(0))
        prepared: tuple[tuple[int, int, int], int] | None = samples.latent_shape[1:], views
    else:
        prepared = prepared_latent(config.experiment, config)
    if prepared is None:
        return Finding("note", "memory", "not predicted, because the dataset is not there: see above")
    latent, views = prepared
    size, work = workload_of(config, latent, views)
    parallel = config.parallel
    split = parallel.tensor * parallel.pipeline * parallel.context
    replicas = max(1, processes_here(config) // split)
    steps = max(1, config.data.global_batch // (config.data.micro_batch * replicas))
    layout = Layout(parallel.tensor, parallel.pipeline, parallel.context, replicas)
    needed = predict_memory(size, layout, parallel, replace(work, num_micro_batches=steps)).total
    guess = (
        "" if samples is not None else f", for latents of {'×'.join(map(str, latent))} as its comment prepares them"
    )
    if torch.cuda.is_available():
        there: float = min(torch.cuda.mem_get_info(i)[1] for i in range(torch.cuda.device_count())) - RESERVE_BYTES
        text = f"{needed / 2**30:.1f} GiB predicted on the fullest GPU, {there / 2**30:.1f} there{guess}"
    else:
        there = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / processes_here(config)
        text = f"{needed / 2**30:.1f} GiB predicted, {there / 2**30:.1f} of RAM there, without a GPU{guess}"
    if needed <= there:
        return Finding("ok", "memory", text)
    ask = f"nemo-cosmos plan experiment={config.experiment} gpus=N gpu_memory=80GB"
    return Finding("fail", "memory", f"{text}: `{ask}` lists layouts that fit; docs/oom.md says what else helps")


def _weights(config: TrainConfig, network: DiTConfig) -> str:
    from nemo_cosmos.training.initial_weights import check_initial_weights
    from nemo_cosmos.training.lora import adapters_to_train
    from nemo_cosmos.training.resume import checkpoint_to_resume, refuse_other_network

    folder = Path(config.output_dir) / "checkpoints"
    quick = replace(config, checkpoint=replace(config.checkpoint, verify="size"))
    save = checkpoint_to_resume(quick, folder)
    if save is not None:
        adapters_to_train(config, folder, resuming=True)
        refuse_other_network(config, network, save)
        return f"the run goes on from {save}"
    source = config.model.init_from
    if source is not None and not located(source, "network").exists():
        raise InputError(
            f"model.init_from={source} is not there: download it as README.md shows, name another, or train from "
            "random weights with model.init_from=null"
        )
    adapters_to_train(config, folder, resuming=False)
    check_initial_weights(config, network)
    return "random initialisation" if source is None else f"{source} fits {config.model.preset}"


def _output(config: TrainConfig) -> Finding:
    """Room for the saves that stay on disk, and the one being written."""
    from nemo_cosmos.commands.plan import workload_of

    size, work = workload_of(config, (1, 2, 2))
    adapters = work.adapter_parameters
    save = SAVED_BYTES * (size.parameters if adapters is None else adapters * size.num_layers)
    return _room(config.output_dir, save, config.checkpoint.keep)


def _room(folder: str, save: float, keep: int) -> Finding:
    first = free_space("run folder", folder, save, "choose another output_dir, or set OUTPUT_ROOT")
    if first.verdict != "ok":
        return replace(first, verdict="fail")
    advice = (
        f"checkpoint.keep={keep} saves of about {save / 2**30:.1f} GiB and one more; keep fewer, or set OUTPUT_ROOT"
    )
    return free_space("run folder", folder, save * (keep + 1), advice)


def _tokenizer(config: TokenizerTrainConfig) -> Iterator[Finding]:
    from nemo_cosmos.models.tokenizer import build_tokenizer

    yield _tried("batch", lambda: _batch(config))
    yield _tried("dataset", lambda: _clips(config))
    source = config.model.init_from
    if source is not None and not located(source, "tokenizer").exists():
        advice = "download it as docs/tokenizers.md shows, or train from random weights with model.init_from=null"
        yield Finding("fail", "weights", f"model.init_from={source} is not there: {advice}")
    else:
        yield Finding("ok", "weights", source or "random initialisation")
    network = build_tokenizer(config.model.preset, **config.model.overrides)
    parameters = sum(parameter.numel() for parameter in network.parameters())
    yield _room(config.output_dir, SAVED_BYTES * parameters, config.checkpoint.keep)


def _batch(config: TokenizerTrainConfig) -> str:
    import torch

    count = torch.cuda.device_count() if torch.cuda.is_available() else 1
    step = config.data.micro_batch * count
    if config.data.global_batch % step:
        raise InputError(
            f"data.global_batch={config.data.global_batch} is not a multiple of data.micro_batch="
            f"{config.data.micro_batch} × {count} processes; use a multiple of {step}"
        )
    return f"{config.data.global_batch} clips a step on {count} {'GPUs' if torch.cuda.is_available() else 'process'}"


def _clips(config: TokenizerTrainConfig) -> str:
    from nemo_cosmos.training.tokenizer.data import resolve_source

    source = resolve_source(config.data.train, config.data)
    if config.data.val is not None:
        resolve_source(config.data.val, config.data)
    return f"{len(source.files)} videos of data.train={config.data.train}"
