"""The parts of a generation job: described at once, loaded at their first use."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from nemo_cosmos.checkpoint import load_network, network_config
from nemo_cosmos.checkpoint.adapters import choices, with_adapters
from nemo_cosmos.checkpoint.sources import open_weights
from nemo_cosmos.errors import InputError
from nemo_cosmos.inference.components import Component
from nemo_cosmos.inference.config import GenerationConfig, trained_text_length, weight_defaults
from nemo_cosmos.inference.guardrail import CosmosGuardrail, Guardrail, guardrail_wanted
from nemo_cosmos.inference.job_settings import GenerationJob, Part
from nemo_cosmos.inference.models import Models
from nemo_cosmos.inference.pipelines import pipeline_for
from nemo_cosmos.inference.pipelines.base import GenerationPipeline
from nemo_cosmos.inference.prompts import PromptUpsampler
from nemo_cosmos.inference.ranks import Ranks
from nemo_cosmos.models.dit.config import DiTConfig
from nemo_cosmos.models.dit.state_dict import check
from nemo_cosmos.models.text import load_text_encoder
from nemo_cosmos.models.video_tokenizer import open_tokenizer


def compute_dtype(job: GenerationJob, ranks: Ranks) -> torch.dtype:
    """Of network and tokenizer: the job's, else bfloat16 on a GPU and float32 on the CPU."""
    return job.dtype or (torch.bfloat16 if ranks.device.type == "cuda" else torch.float32)


def _check_weights(job: GenerationJob, dit: DiTConfig) -> None:
    """Names, shapes and sizes of the network's files and of its adapters, before other models take their time.

    Raises:
        InputError: they are not there, or not of this network.
    """
    try:
        found = open_weights(job.weights, weights=job.kind, verify_files="size", lora_alpha=job.lora_alpha)
    except InputError as error:
        raise InputError(str(error) if str(job.weights) in str(error) else f"{job.weights}: {error}") from error
    state = with_adapters(
        dit, found.state, choices(job.lora), lora_alpha=job.lora_alpha, weights=job.kind, verify_files="size"
    )
    try:
        check(dit, state)
    except InputError as error:
        raise InputError(f"{job.weights}: {error}") from error


def build_models(job: GenerationJob, ranks: Ranks) -> Models:
    """The parts of a job, none loaded yet.

    Raises:
        InputError: the network's configuration is unknown, its weights or adapters do not fit it, or guardrails were
            asked for and are not installed.
    """
    dit = describe_network(job.weights, job.preset)
    _check_weights(job, dit)
    device, dtype = ranks.device, compute_dtype(job, ranks)
    text_length = trained_text_length(job.weights, dit)

    def component(part: Part, load: Any) -> Component[Any]:
        return Component(part, load, device=device, offload=part in job.offload)

    guardrail: Component[Guardrail] | None = None
    if ranks.is_first and guardrail_wanted(job.guardrail):
        guardrail = component("guardrail", CosmosGuardrail)
    upsampler: Component[PromptUpsampler] | None = None
    if job.upsampler is not None:
        name = job.upsampler
        upsampler = component("upsampler", lambda d: PromptUpsampler(name, device=d))
    return Models(
        dit=dit,
        network=component(
            "network",
            lambda d: load_network(
                job.weights,
                weights=job.kind,
                preset=job.preset,
                device=d,
                dtype=dtype,
                context_group=ranks.context_group,
                verify_files=job.verify,
                adapter=job.lora,
                lora_alpha=job.lora_alpha,
            ),
        ),
        tokenizer=component(
            "tokenizer", lambda d: open_tokenizer(job.tokenizer, device=d, dtype=dtype, verify_files=job.verify)
        ),
        text_encoder=component(
            "text_encoder",
            lambda d: load_text_encoder(
                job.text_encoder, max_length=text_length, device=d, dtype=job.text_encoder_dtype
            ),
        ),
        upsampler=upsampler,
        guardrail=guardrail,
    )


def open_pipeline(
    job: GenerationJob, config: GenerationConfig, models: Models, ranks: Ranks
) -> GenerationPipeline[Any]:
    """The pipeline of a job's network over parts that may be loaded already.

    Raises:
        InputError: no pipeline runs the network, settings that have no effect, or what the run does not say is open.
    """
    kind = pipeline_for(models.dit)
    defaults = weight_defaults(job.weights, config, kind.released_size, models.dit)
    return kind(models, config, defaults, ranks, upsampler_word_limit=job.upsampler_word_limit)


def describe_network(weights: Path, preset: str | None) -> DiTConfig:
    """The network's configuration: the preset's for a file, else what the run recorded."""
    if not weights.exists():
        raise InputError(f"{weights} does not exist: expected a run folder or a .pt file")
    if weights.is_dir():
        if preset is not None:
            raise InputError(f"{weights} is a run folder, which knows its network: leave out the preset {preset}")
        return network_config(weights)
    return DiTConfig.preset(preset) if preset is not None else network_config(weights)
