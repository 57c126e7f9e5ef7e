"""A generation job schedules requests, goes on where it stopped, and reports; a pipeline makes the results."""

from __future__ import annotations

import logging
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from glob import escape
from pathlib import Path
from typing import Any

import torch

from nemo_cosmos.atomic import write_bytes, write_json
from nemo_cosmos.diffusion.samplers import Progress
from nemo_cosmos.errors import InputError, explain_os_error, require_replaceable, require_writable
from nemo_cosmos.inference.components import free_memory
from nemo_cosmos.inference.finished import is_finished, job_record, request_record
from nemo_cosmos.inference.job_settings import GenerationJob
from nemo_cosmos.inference.loading import build_models, compute_dtype, describe_network, open_pipeline
from nemo_cosmos.inference.pipelines import pipeline_for
from nemo_cosmos.inference.pipelines.base import GenerationPipeline
from nemo_cosmos.inference.pipelines.texts import PreparedText
from nemo_cosmos.inference.progress import progress_bars
from nemo_cosmos.inference.ranks import start_ranks, stop_ranks
from nemo_cosmos.inference.requests import GenerationRequest
from nemo_cosmos.lock import share_folder

logger = logging.getLogger(__name__)


@dataclass
class JobSummary:
    """Names of requests by what became of them; each asks for one video or image, as ``makes`` says."""

    written: list[str] = field(default_factory=list)
    finished_before: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    makes: str = "video"

    def __str__(self) -> str:
        parts = [f"{len(self.written)} {self.makes}s written"]
        if self.finished_before:
            parts.append(f"{len(self.finished_before)} were there already")
        if self.refused:
            parts.append(f"{len(self.refused)} refused by the guardrails ({', '.join(self.refused)})")
        return ", ".join(parts)


def run_job(job: GenerationJob, requests: list[GenerationRequest]) -> JobSummary:
    """Makes ``output/<name>.mp4``, or an image, with the final prompt in ``<name>.txt`` and the settings in
    ``<name>.json``.

    A result whose record holds the same models, precision, input and settings is not made again. Files appear under
    their names when complete. Under torchrun the processes share each of them by context parallelism, and the first
    one writes.

    Raises:
        InputError: a missing model or input, a network that no pipeline runs, settings that do not fit, or an output
            folder that cannot be written.
    """
    ranks = start_ranks(job.num_gpus)
    try:
        if not ranks.is_first:
            logging.getLogger("nemo_cosmos").setLevel(logging.ERROR)
        dit = describe_network(job.weights, job.preset)
        kind = pipeline_for(dit)
        kind.check_settings(job.config)
        requests, config = kind.complete(dit, requests, job.config, job.weights)
        kind.check_inputs(dit, requests)
        summary = JobSummary(makes=kind.makes)
        results = {r.name: kind.files(job.output / f"{r.name}{kind.suffix(config)}", config) for r in requests}
        settings, shared = kind.settings_record(config), job_record(job, compute_dtype(job, ranks))
        records = {request.name: request_record(request, settings, shared) for request in requests}
        summary.finished_before = ranks.from_first(
            lambda: [] if job.overwrite else [name for name in records if is_finished(results[name], records[name])]
        )
        pending = [request for request in requests if request.name not in summary.finished_before]
        for name in summary.finished_before:
            logger.info("%s is finished: skipped", results[name][-1])
        if pending:
            require_writable(job.output)
            for file in (file for request in pending for file in results[request.name]):
                require_replaceable(file)
                require_writable(file.parent)
            models = build_models(job, ranks)
            pipeline = open_pipeline(job, config, models, ranks)
            run_requests(pipeline, pending, job.output, records, summary)
        logger.info("%s: %s", job.output, summary)
        return summary
    finally:
        stop_ranks(ranks)


def run_requests(
    pipeline: GenerationPipeline[Any],
    requests: list[GenerationRequest],
    output: Path,
    records: dict[str, dict[str, Any]],
    summary: JobSummary,
) -> None:
    """Generates and writes one after the other; text models are through before the first begins."""
    models, ranks = pipeline.models, pipeline.ranks
    prepared = pipeline.prepare_texts(requests)
    for part in (models.text_encoder, models.upsampler):
        if part is not None and part.offload:
            part.release()
    with ExitStack() as stack:
        if ranks.is_first:
            output.mkdir(parents=True, exist_ok=True)
            files = [file for request in requests for file in _files(pipeline, request, output)]
            stack.enter_context(share_folder(output, lambda: remove_unfinished(files)))
        bars = stack.enter_context(progress_bars(len(requests), enabled=ranks.is_first))
        for request, text in zip(requests, prepared, strict=True):
            bars.begin(request.name)
            if text.text is None:
                logger.warning("%s: the guardrail refused the prompt", request.name)
                summary.refused.append(request.name)
            else:
                _generate_one(pipeline, request, text, output, records[request.name], summary, bars.evaluation)
            bars.end()


def _files(pipeline: GenerationPipeline[Any], request: GenerationRequest, output: Path) -> list[Path]:
    """Every file of a request's result; the video or image itself is the last."""
    return pipeline.files(output / f"{request.name}{pipeline.suffix(pipeline.config)}", pipeline.config)


def remove_unfinished(files: list[Path]) -> None:
    """Delete the temporary files that a killed job left of these results, their texts and records."""
    for result in files:
        # What is being written begins with a dot and the first characters of its name.
        for file in result.parent.glob(f".{escape(result.stem[:36])}*.tmp"):
            file.unlink(missing_ok=True)


def _generate_one(
    pipeline: GenerationPipeline[Any],
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
        logger.warning("%s: the guardrail refused the %s", request.name, pipeline.makes)
        summary.refused.append(request.name)
        return
    measured: dict[str, Any] = {"seconds": round(seconds, 3), "frames": frames.shape[-3], "fps": fps}
    *_, result = _files(pipeline, request, output)
    if device.type == "cuda":
        measured["peak_memory_bytes"] = torch.cuda.max_memory_allocated(device)
    try:
        # Until the new one is written, no record speaks of the result.
        (output / f"{request.name}.json").unlink(missing_ok=True)
        write_bytes(output / f"{request.name}.txt", (text.prompt + "\n").encode())
        pipeline.write(result, frames, fps)
        # Last, because it is what marks the result as finished.
        write_json(output / f"{request.name}.json", {**record, "final_prompt": text.prompt, "measured": measured})
    except OSError as error:
        # Neither a file that fills the disk while it is closed nor the writer of videos says where.
        explanation = explain_os_error(error, output)
        if explanation is None:
            raise
        raise InputError(explanation) from error
    summary.written.append(request.name)
    logger.info("%s written in %.1f s", result, seconds)
    free_memory(device)
