"""A run that is asked to end does so with the signal's status wherever it is, and goes on from there."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.faults.commands import Trap, run
from tests.faults.conftest import Reference
from tests.faults.jobs import JOBS, result

STAGES = {
    ("train", "start"): ("*config.yaml*", 1),
    ("train", "step"): ("metrics.jsonl", 3),
    ("train", "save"): ("checkpoints/.iter_000000002.tmp*", 1),
    ("train", "export"): ("checkpoints/*iter_000000002_ema_model.pt*", 1),
    ("tokenizer train", "start"): ("*config.yaml*", 1),
    ("tokenizer train", "step"): ("metrics.jsonl", 3),
    ("tokenizer train", "save"): ("checkpoints/*iter_000000002.pt*", 1),
}
SHORT = {("train", "export", "SIGTERM"), ("tokenizer train", "step", "SIGTERM")}
CASES = [
    pytest.param(name, stage, number, marks=[] if (name, stage, number) in SHORT else [pytest.mark.faults])
    for name, stage in STAGES
    for number in ("SIGTERM", "SIGINT", "SIGUSR1")
]


@pytest.mark.parametrize(("name", "stage", "number"), CASES)
def test_signal(
    name: str, stage: str, number: str, materials: Path, reference: Callable[[str], Reference], tmp_path: Path
) -> None:
    expected, folder = reference(name), tmp_path / "out"
    words = JOBS[name].words(materials, folder)
    pattern, count = STAGES[name, stage]
    ended = run(words, folder, trap=Trap(pattern, count, signal.Signals[number]))
    assert ended.status == 128 + signal.Signals[number], ended.log
    if stage != "start":
        assert "Traceback" not in ended.log
        last = json.loads((folder / "metrics.jsonl").read_text().splitlines()[-1])["step"]
        newest = (folder / "checkpoints" / "latest_checkpoint.txt").read_text().strip()
        assert newest == f"iter_{last:09d}.pt"
    assert run(words, folder).status == 0
    # The save that it ended with stays beside those of every second step.
    extra = result(folder, JOBS[name])
    assert {file: extra[file] for file in expected.result} == expected.result
