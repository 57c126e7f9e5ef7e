"""A generation job: folders and flags in, video files out, resumable."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from glob import escape
from pathlib import Path
from typing import Any

import torch

from nemo_cosmos.atomic import write_bytes, write_json
from nemo_cosmos.checkpoint import load_network, network_config
from nemo_cosmos.data.video import write_mp4
from nemo_cosmos.diffusion.samplers import Progress
from nemo_cosmos.errors import InputError, explain_os_error, require_file, require_writable
from nemo_cosmos.inference.components import Component, free_memory
from nemo_cosmos.inference.config import weight_defaults
from nemo_cosmos.inference.finished import is_finished, job_record, request_record
from nemo_cosmos.inference.guardrail import CosmosGuardrail, Guardrail, guardrail_wanted
from nemo_cosmos.inference.job_settings import GenerationJob, Part
from nemo_cosmos.inference.pipeline import Models, PreparedText, WorldPipeline
from nemo_cosmos.inference.prompts import PromptUpsampler
from nemo_cosmos.inference.ranks import Ranks, start_ranks, stop_ranks
from nemo_cosmos.inference.requests import GenerationRequest
from nemo_cosmos.lock import share_folder
from nemo_cosmos.models.dit.config import DiTConfig
from nemo_cosmos.models.text import load_text_encoder
from nemo_cosmos.models.video_tokenizer import open_tokenizer

logger = logging.getLogger(__name__)


@dataclass
class JobSummary:
    """Names of requests by what became of them."""

    written: list[str] = field(default_factory=list)
    finished_before: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        parts = [f"{len(self.written)} videos written"]
        if self.finished_before:
            parts.append(f"{len(self.finished_before)} were there already")
        if self.refused:
            parts.append(f"{len(self.refused)} refused by the guardrails ({', '.join(self.refused)})")
        return ", ".join(parts)


def run_job(job: GenerationJob, requests: list[GenerationRequest]) -> JobSummary:
    """Makes ``output/<name>.mp4``, with the final prompt in ``<name>.txt`` and the settings in ``<name>.json``.

    A video whose record holds the same models, precision, input and settings is not made again. Files appear under
    their names when complete. Under torchrun the processes share each video by context parallelism, and the first one
    writes.

    Raises:
        InputError: a missing model or input, settings that do not fit, or an output folder that cannot be written.
    """
    for request in requests:
        if request.visual_input is not None:
            require_file(request.visual_input, f"{request.name}: input ")
    ranks = start_ranks(job.num_gpus)
    try:
        if not ranks.is_first:
            logging.getLogger("nemo_cosmos").setLevel(logging.ERROR)
        summary = JobSummary()
        shared = job_record(job, compute_dtype(job, ranks))
        records = {request.name: request_record(job, request, shared) for request in requests}
        summary.finished_before = ranks.from_first(
            lambda: [] if job.overwrite else [name for name in records if is_finished(job.output, name, records[name])]
        )
        pending = [request for request in requests if request.name not in summary.finished_before]
        for name in summary.finished_before:
            logger.info("%s is finished: skipped", job.output / f"{name}.mp4")
        if pending:
            require_writable(job.output)
            defaults = weight_defaults(job.weights, job.config)
            models = build_models(job, defaults.text_length, ranks)
            pipeline = WorldPipeline(
                models, job.config, defaults, ranks, upsampler_word_limit=job.upsampler_word_limit
            )
            run_requests(pipeline, pending, job.output, records, summary)
        logger.info("%s: %s", job.output, summary)
        return summary
    finally:
        stop_ranks(ranks)


def compute_dtype(job: GenerationJob, ranks: Ranks) -> torch.dtype:
    """Of network and tokenizer: the job's, else bfloat16 on a GPU and float32 on the CPU."""
    return job.dtype or (torch.bfloat16 if ranks.device.type == "cuda" else torch.float32)


def build_models(job: GenerationJob, text_length: int, ranks: Ranks) -> Models:
    """The parts of a job, none loaded yet; ``text_length`` is how many text tokens are kept.

    Raises:
        InputError: the network's configuration is unknown, or guardrails were asked for and are not installed.
    """
    device, dtype = ranks.device, compute_dtype(job, ranks)

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
        dit=describe_network(job.weights, job.preset),
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


def describe_network(weights: Path, preset: str | None) -> DiTConfig:
    """The network's configuration: the preset's for a file, else what the run recorded."""
    if not weights.exists():
        raise InputError(f"{weights} does not exist: expected a run folder or a .pt file")
    if weights.is_dir():
        if preset is not None:
            raise InputError(f"{weights} is a run folder, which knows its network: leave out the preset {preset}")
        return network_config(weights)
    return network_config(weights.parent) if preset is None else DiTConfig.preset(preset)


def run_requests(
    pipeline: WorldPipeline,
    requests: list[GenerationRequest],
    output: Path,
    records: dict[str, dict[str, Any]],
    summary: JobSummary,
) -> None:
    """Generates and writes one video after the other; text models are through before the first begins."""
    models, ranks = pipeline.models, pipeline.ranks
    prepared = pipeline.prepare_texts(requests)
    for part in (models.text_encoder, models.upsampler):
        if part is not None and part.offload:
            part.release()
    with ExitStack() as stack:
        if ranks.is_first:
            output.mkdir(parents=True, exist_ok=True)
            stack.enter_context(share_folder(output, lambda: remove_unfinished(output, requests)))
        bars = stack.enter_context(progress_bars(len(requests), enabled=ranks.is_first))
        for request, text in zip(requests, prepared, strict=True):
            bars.begin(request.name)
            if text.text is None:
                logger.warning("%s: the guardrail refused the prompt", request.name)
                summary.refused.append(request.name)
            else:
                _generate_one(pipeline, request, text, output, records[request.name], summary, bars.evaluation)
            bars.end()


def remove_unfinished(output: Path, requests: list[GenerationRequest]) -> None:
    """Delete the temporary files that a killed job left of these videos."""
    for request in requests:
        # What is being written begins with a dot and the first characters of its name.
        for file in output.glob(f".{escape(request.name[:36])}*.tmp"):
            file.unlink(missing_ok=True)


def _generate_one(
    pipeline: WorldPipeline,
    request: GenerationRequest,
    text: PreparedText,
    output: Path,
    record: dict[str, Any],
    summary: JobSummary,
    progress: Progress,
) -> None:
    device = pipeline.ranks.device
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    started = time.perf_counter()
    frames, fps = pipeline.generate(request, text, progress=progress)
    seconds = time.perf_counter() - started
    if not pipeline.ranks.is_first:
        return
    if frames is None:
        logger.warning("%s: the guardrail refused the video", request.name)
        summary.refused.append(request.name)
        return
    measured: dict[str, Any] = {"seconds": round(seconds, 3), "frames": frames.shape[1], "fps": fps}
    if device.type == "cuda":
        measured["peak_memory_bytes"] = torch.cuda.max_memory_allocated(device)
    try:
        # Until the new one is written, no record speaks of the video.
        (output / f"{request.name}.json").unlink(missing_ok=True)
        write_bytes(output / f"{request.name}.txt", (text.prompt + "\n").encode())
        write_mp4(output / f"{request.name}.mp4", frames, fps, pipeline.config.crf)
        # Last, because it is what marks the video as finished.
        write_json(output / f"{request.name}.json", {**record, "final_prompt": text.prompt, "measured": measured})
    except OSError as error:
        # Neither a file that fills the disk while it is closed nor the writer of videos says where.
        explanation = explain_os_error(error, output)
        if explanation is None:
            raise
        raise InputError(explanation) from error
    summary.written.append(request.name)
    logger.info("%s written in %.1f s", output / f"{request.name}.mp4", seconds)
    free_memory(device)


class _Bars:
    """One bar over the videos and one over the evaluations of the current one."""

    def __init__(self, bars: Any, num_requests: int) -> None:
        self._bars = bars
        self._videos = bars.add_task("videos", total=num_requests) if num_requests > 1 else None
        self._steps = bars.add_task("", total=None)

    def begin(self, name: str) -> None:
        self._bars.reset(self._steps, description=name, total=None)

    def evaluation(self, done: int, total: int) -> None:
        self._bars.update(self._steps, completed=done, total=total)

    def end(self) -> None:
        if self._videos is not None:
            self._bars.advance(self._videos)


@contextmanager
def progress_bars(num_requests: int, *, enabled: bool) -> Iterator[_Bars]:
    """What a person sees of a job on standard error."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    console = Console(stderr=True)
    disable = not enabled or os.environ.get("TERM") == "dumb"
    with Progress(*columns, TimeRemainingColumn(), console=console, disable=disable) as bars:
        yield _Bars(bars, num_requests)
