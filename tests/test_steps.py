"""Steps are done once: what is done is skipped, what was asked for anew is done anew with all that follows."""

from __future__ import annotations

from pathlib import Path

import pytest

from nemo_cosmos.errors import InputError
from nemo_cosmos.steps import Step, StepLog, call_command, command_line


def counting_step(folder: Path, name: str, request: object, done: list[str]) -> Step:
    def run() -> None:
        done.append(name)
        (folder / name).touch()

    return Step(name, request, run, [folder / name], f"do {name}")


def test_what_is_done_is_skipped_and_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    done: list[str] = []
    for _ in range(2):
        log = StepLog(tmp_path / "steps.json")
        log.perform([counting_step(tmp_path, "one", 1, done), counting_step(tmp_path, "two", 1, done)])
    assert done == ["one", "two"]
    assert "[2/2] two: done before in" in capsys.readouterr().out


def test_another_request_does_the_step_and_all_after_it_anew(tmp_path: Path) -> None:
    done: list[str] = []
    for request in (1, 2):
        steps = [counting_step(tmp_path, name, request if name == "two" else 0, done) for name in ("one", "two", "x")]
        StepLog(tmp_path / "steps.json").perform(steps)
    assert done == ["one", "two", "x", "two", "x"]


def test_interrupted_step_goes_on_with_its_outputs(tmp_path: Path) -> None:
    kept: list[bool] = []

    def interrupted() -> None:
        (tmp_path / "part").touch()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        StepLog(tmp_path / "steps.json").perform([Step("one", 1, interrupted, [tmp_path / "part"], "")])
    resumed = Step("one", 1, lambda: kept.append((tmp_path / "part").exists()), [tmp_path / "part"], "")
    StepLog(tmp_path / "steps.json").perform([resumed])
    assert kept == [True]


def test_removed_output_is_made_again(tmp_path: Path) -> None:
    done: list[str] = []
    StepLog(tmp_path / "steps.json").perform([counting_step(tmp_path, "one", 1, done)])
    (tmp_path / "one").unlink()
    StepLog(tmp_path / "steps.json").perform([counting_step(tmp_path, "one", 1, done)])
    assert done == ["one", "one"]


def test_damaged_log_is_named(tmp_path: Path) -> None:
    (tmp_path / "steps.json").write_text("{", encoding="utf-8")
    with pytest.raises(InputError, match=r"steps\.json is damaged"):
        StepLog(tmp_path / "steps.json")


def test_what_the_user_would_type_is_what_runs(capfd: pytest.CaptureFixture[str]) -> None:
    shown, call = command_line(["--version"], 1)
    assert shown == "nemo-cosmos --version"
    call_command("version", call)
    assert capfd.readouterr().out.startswith("nemo-cosmos ")
    shown, _ = command_line(["train", "a=1 2"], 2)
    assert shown == "torchrun --standalone --nproc_per_node=2 -m nemo_cosmos train 'a=1 2'"


def test_a_failed_command_ends_with_its_status_and_names_the_step(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        call_command("cut", command_line(["no-such-verb"], 1)[1])
    assert ended.value.code == 2 and "the step cut failed" in capfd.readouterr().err
