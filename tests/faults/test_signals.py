"""A run that is asked to end does so with the signal's status wherever it is, and goes on from there."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from nemo_cosmos.data.shards import ShardDataset
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
KEEPING = {
    ("prepare", "start"): ("*", 1),
    ("prepare", "shard"): (".shard-0000-000001.tar*", 1),
    ("prepare", "index"): (".shard-0000-000001.index*", 1),
    ("prepare", "manifest"): ("*manifest.json*", 1),
    ("generate", "start"): ("*", 1),
    ("generate", "prompt"): (".v1.txt*", 1),
    ("generate", "video"): (".v1.mp4*", 1),
    ("generate", "rename"): ("v1.mp4", 1),
    ("generate", "record"): (".v1.json*", 1),
}
"""Commands without a save to make: what is finished is kept."""
FIRST = {"prepare": "shard-0000-000000", "generate": "v0."}
"""What is finished at every stage but the start, and not made again."""
SHORT = {("train", "export"), ("tokenizer train", "step"), ("prepare", "index"), ("generate", "video")}


def cases(stages: Iterable[tuple[str, str]]) -> list[Any]:
    return [
        pytest.param(*key, number, marks=[] if key in SHORT and number == "SIGTERM" else [pytest.mark.faults])
        for key in stages
        for number in ("SIGTERM", "SIGINT", "SIGUSR1")
    ]


@pytest.mark.parametrize(("name", "stage", "number"), cases(STAGES))
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


@pytest.mark.parametrize(("name", "stage", "number"), cases(KEEPING))
def test_signal_to_a_command_that_keeps_what_is_finished(
    name: str, stage: str, number: str, materials: Path, reference: Callable[[str], Reference], tmp_path: Path
) -> None:
    expected, folder = reference(name), tmp_path / "out"
    words = JOBS[name].words(materials, folder)
    ended = run(words, folder, trap=Trap(*KEEPING[name, stage], signal.Signals[number]))
    assert ended.status == 128 + signal.Signals[number], ended.log
    assert "Traceback" not in ended.log and "error:" not in ended.log
    assert ended.log.count(f"{number}: ended; what is finished is kept") == 1
    found = result(folder, JOBS[name])
    assert not [file for file in found if Path(file).name.startswith(".")]
    assert stage == "start" or [file for file in found if file != "prepare.json"]
    if name == "generate":
        assert found == {file: expected.result[file] for file in found}
    times = {file: (folder / file).stat().st_mtime_ns for file in found if file.startswith(FIRST[name])}
    assert run(words, folder).status == 0
    assert times == {file: (folder / file).stat().st_mtime_ns for file in times}
    if name == "generate":
        assert result(folder, JOBS[name]) == expected.result
    else:
        # The samples of the shard that was being written are kept in a shorter one: the same samples in other files.
        assert samples_of(folder) == samples_of(expected.folder)


def samples_of(folder: Path) -> dict[str, tuple[str, bytes]]:
    """Caption and latent of every sample of a folder of shards."""
    dataset = ShardDataset(folder, verify="full")
    samples = [dataset[index] for index in range(len(dataset))]
    return {sample.key: (sample.caption, sample.latent.float().numpy().tobytes()) for sample in samples}


SAVES = [
    ("train", "save"),
    ("train", "export"),
    ("tokenizer train", "save"),
]


@pytest.mark.faults
@pytest.mark.parametrize(("name", "stage"), SAVES)
def test_a_second_signal_within_a_save(
    name: str, stage: str, materials: Path, reference: Callable[[str], Reference], tmp_path: Path
) -> None:
    """It ends the run at once; what was half-written is not taken for a save."""
    expected, folder = reference(name), tmp_path / "out"
    words = JOBS[name].words(materials, folder)
    ended = run(words, folder, trap=Trap(*STAGES[name, stage], signal.SIGTERM, again=True))
    assert ended.status == 128 + signal.SIGTERM, ended.log
    assert "SIGTERM again: ended at once" in ended.log
    assert not (folder / "checkpoints" / "latest_checkpoint.txt").exists()
    assert run(words, folder).status == 0
    assert result(folder, JOBS[name]) == expected.result
