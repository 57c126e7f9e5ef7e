"""The commands whose faults are tried, on data of a few kilobytes, and what they must have made in the end."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.inference.runs import write_models
from tests.parallel.runs import small_overrides
from tests.training.clips import write_raw_data
from tests.training.shards import write_shards

STEPS = 4
TIMED = ("seconds", "tokens_per_second", "frames_per_second", "memory_bytes", "data_wait_seconds", "measured")
"""What differs between two runs that are the same."""


def write_materials(folder: Path) -> Path:
    """``shards``, ``raw``, ``models`` and ``batch.jsonl``: what all commands read."""
    write_shards(folder / "shards", shape=(3, 4, 4))
    write_raw_data(folder / "raw", count=5)
    write_models(folder / "models")
    lines = [{"prompt": f"take {i}", "visual_input": "models/clip.mp4", "name": f"v{i}"} for i in range(3)]
    (folder / "batch.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def train(materials: Path, output: Path, workers: int = 0) -> list[str]:
    options = [f"trainer.max_steps={STEPS}", "checkpoint.every_n_steps=2", f"data.num_workers={workers}"]
    return ["train", *small_overrides(materials / "shards", output, *options)]


def train_tokenizer(materials: Path, output: Path, workers: int = 0) -> list[str]:
    videos = f"{materials}/raw/clips/videos"
    return [
        "tokenizer", "train", "experiment=demo_tokenizer", f"data.train={videos}/*.mp4",
        f"data.val={videos}/clip0.mp4", f"output_dir={output}", "model.preset=CV4x8x8-360p", "trainer.device=cpu",
        "model.overrides={channels:4,channels_mult:[1,2,2],num_res_blocks:1,chunk_frames:5}", "data.num_frames=5",
        "data.crop=[16,16]", f"data.num_workers={workers}", "data.global_batch=2", "data.micro_batch=1",
        f"trainer.max_steps={STEPS}", "trainer.log_every_n_steps=1", "checkpoint.every_n_steps=2",
        "checkpoint.statistics_clips=2", "validation.every_n_steps=3",
    ]  # fmt: skip


def prepare(materials: Path, output: Path, workers: int = 0) -> list[str]:
    raw = materials / "raw"
    return [
        "prepare", str(raw / "clips"), str(output), "--tokenizer", str(raw / "tokenizer"), "--text-encoder",
        str(raw / "text_encoder"), "--frames", "9", "--size", "32x48", "--samples-per-shard", "2",
        "--workers", str(workers),
    ]  # fmt: skip


def generate(materials: Path, output: Path, workers: int = 0) -> list[str]:
    models = materials / "models"
    """It has no reading processes."""
    return [
        "generate", "--model", str(models / "run"), "--tokenizer", str(models / "tokenizer"), "--text-encoder",
        str(models / "text"), "--batch", str(materials / "batch.jsonl"), "--height", "32", "--width", "48",
        "--num-frames", "9", "--num-steps", "2", "--output", str(output),
    ]  # fmt: skip


@dataclass(frozen=True)
class Job:
    """A command.

    Attributes:
        words: the arguments of ``nemo-cosmos``, from the materials, the output folder and how many processes read
            ahead.
        crucial: touches before which it is killed in every test run; by pattern and how many of it.
        ignored: what says when something was done.
    """

    words: Callable[..., list[str]]
    crucial: tuple[tuple[str, int], ...]
    ignored: tuple[str, ...] = ()


JOBS = {
    "train": Job(
        train,
        (("checkpoints/latest_checkpoint.txt", 1), ("checkpoints/iter_000000004_reg_model.pt", 1)),
        (
            "config.yaml",
            "starts.jsonl",
            "tensorboard/",
            "weights/.metadata",
            "weights/common.pt",
            "checksums",
            ".sha256",
        ),
    ),
    "tokenizer train": Job(
        train_tokenizer, (("checkpoints/latest_checkpoint.txt", 2),), ("config.yaml", "starts.jsonl", "tensorboard/")
    ),
    "prepare": Job(prepare, (("shard-0000-000001.index.json", 1), (".shard-0000-000001.index.json*", 1))),
    "generate": Job(generate, (("v1.mp4", 1), (".v1.json*", 1))),
}


def result(folder: Path, job: Job) -> dict[str, Any]:
    """What a command has made, to the last bit, times aside: digests of files by name, values of JSON records."""
    made: dict[str, Any] = {}
    for file in sorted(folder.rglob("*")):
        name = file.relative_to(folder).as_posix()
        if not file.is_file() or "events.out.tfevents" in name:
            continue
        content = file.read_bytes()
        if any(part in name for part in job.ignored):
            made[name] = "there"
        elif name.endswith("metrics.jsonl"):
            made[name] = [_untimed(json.loads(line)) for line in content.splitlines()]
        elif name.endswith(".json") and b'"measured"' in content:
            made[name] = _untimed(json.loads(content))
        else:
            made[name] = hashlib.sha256(content).hexdigest()
    return made


def _untimed(record: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in record.items() if key not in TIMED}
