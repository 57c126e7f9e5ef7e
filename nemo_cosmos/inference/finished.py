"""Which videos or images of a job are finished: those whose record says that nothing has changed that shapes them."""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path
from typing import Any

import torch

from nemo_cosmos.checkpoint.adapters import choices
from nemo_cosmos.checkpoint.files import JOINT, LATEST, MODEL_CONFIG
from nemo_cosmos.data.embeddings import file_digest
from nemo_cosmos.inference.inputs import GivenFrames
from nemo_cosmos.inference.job_settings import GenerationJob
from nemo_cosmos.inference.requests import GenerationRequest
from nemo_cosmos.models.wan_vae import find_wan_vae
from nemo_cosmos.typed import parse_json

logger = logging.getLogger(__name__)


def job_record(job: GenerationJob, dtype: torch.dtype) -> dict[str, Any]:
    """All of a job that decides what its videos look like, as JSON values.

    Models are known by the sizes and times of their files, so that new weights under an old path are other weights.

    Args:
        job: the job.
        dtype: the one that network and tokenizer run in.
    """
    latest, adapters = _latest(job.weights), choices(job.lora)
    return {
        "weights": str(job.weights),
        "weights_files": fingerprint(*_weight_files(job.weights, job.kind), deep=True),
        "checkpoint": None if latest is None else latest.read_text(errors="replace").strip(),
        "kind": job.kind,
        "preset": job.preset,
        "tokenizer": str(job.tokenizer),
        "tokenizer_files": fingerprint(find_wan_vae(job.tokenizer) or job.tokenizer),
        "precision": str(dtype).removeprefix("torch."),
        "text_encoder": job.text_encoder,
        "text_encoder_files": fingerprint(Path(job.text_encoder)),
        "text_encoder_precision": str(job.text_encoder_dtype).removeprefix("torch."),
        "upsampler": job.upsampler,
        "upsampler_files": None if job.upsampler is None else fingerprint(Path(job.upsampler)),
        "upsampler_word_limit": job.upsampler_word_limit,
        "guardrail": job.guardrail,
        "lora": ", ".join(map(str, adapters)) or None,
        "lora_files": fingerprint(*(choice.path for choice in adapters)),
        "lora_alpha": job.lora_alpha,
    }


def request_record(request: GenerationRequest, settings: dict[str, Any], shared: dict[str, Any]) -> dict[str, Any]:
    """What decides what one result looks like; ``settings`` and ``shared`` are the job's part."""
    if request.seed is not None:
        settings = {**settings, "seed": request.seed}
    views = [
        {"camera": view.camera.folder, "prompt": view.prompt, "visual_input": _file_record(view.given)}
        for view in request.views
    ]
    return {
        "prompt": request.prompt,
        "visual_input": _file_record(request.visual_input),
        **({"views": views, "embedding": _file_record(request.embedding)} if views else {}),
        **shared,
        "settings": settings,
    }


def _file_record(file: Path | GivenFrames | None) -> dict[str, Any] | None:
    if not isinstance(file, Path):
        return None
    return {"path": str(file), "bytes": file.stat().st_size, "sha256": file_digest(file)}


def is_finished(files: list[Path], record: dict[str, Any]) -> bool:
    """Whether a result is there, made as the record says; says what differs.

    Args:
        files: of the result; the record lies beside the last one.
        record: what it shall be made of.
    """
    *_, result = files
    file = result.with_suffix(".json")
    if not file.is_file() or not all(part.is_file() for part in files):
        return False
    try:
        found = parse_json(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    other = [key for key, value in record.items() if not isinstance(found, dict) or found.get(key) != value]
    if other:
        logger.info("%s was made with other %s: made again", result, ", ".join(other))
    return not other


def fingerprint(*paths: Path, deep: bool = False) -> str | None:
    """Digest over names, sizes and times of files and of those in folders, with ``deep`` also in folders of these;
    None where there are none.

    Nothing is read: weights of 28 GB would take half a minute.
    """
    lines = []
    for path in paths:
        files = sorted(f for f in path.glob("**/*" if deep else "*") if f.is_file()) if path.is_dir() else [path]
        for file in files:
            if file.is_file():
                stat = file.stat()
                name = file.relative_to(path) if path.is_dir() else file.name
                lines.append(f"{name} {stat.st_size} {stat.st_mtime_ns}")
    return hashlib.sha256("\n".join(lines).encode("utf-8", "surrogateescape")).hexdigest() if lines else None


def _latest(weights: Path) -> Path | None:
    """The file of a run that names its newest checkpoint."""
    return next((f / LATEST for f in (weights / "checkpoints", weights) if (f / LATEST).is_file()), None)


def _weight_files(weights: Path, kind: str) -> list[Path]:
    """What the network is loaded from: of a run the newest save alone, which grows other files while it trains."""
    latest = _latest(weights)
    if latest is None:
        return [weights, weights.with_name(f"{weights.name}_{kind}_model.pt")]
    name = latest.read_text(errors="replace").strip().removesuffix(".pt")
    exported = (latest.parent / f"{name}_{kind}_model.pt", latest.parent / JOINT / f"{name}.pt")
    found = next((file for file in exported if file.is_file()), latest.parent / name)
    return [found, latest.parent / MODEL_CONFIG]
