"""The launches that the documentation shows, as they are typed."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from nemo_cosmos.commands.launch import launch
from tests.documented import ROOT, Command, documented_commands

LINES = [command for command in documented_commands() if command.program[1][:1] == ["launch"] and command.complete]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with the demo's shards, and a home."""
    (tmp_path / "outputs/demo/shards").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for name in ("OUTPUT_ROOT", "DATA_ROOT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    return tmp_path


@pytest.mark.parametrize("command", LINES, ids=lambda command: f"{command.page}-{command.text[-60:]}")
def test_a_documented_launch_has_a_script(command: Command, capsys: pytest.CaptureFixture[str]) -> None:
    words = [word for word in command.program[1][1:] if word != "--dry-run"]
    launch(words, dry_run=True)
    assert "-m nemo_cosmos train" in capsys.readouterr().out


def test_the_docker_line_of_the_page_is_what_is_printed(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = (ROOT / "docs/launching.md").read_text(encoding="utf-8")
    (shown,) = re.findall(r"^docker run .*-m nemo_cosmos train .*$", page, flags=re.M)
    (words,) = [command.program[1][1:-1] for command in LINES if "executor=docker" in command.text]
    launch(words, dry_run=True)
    printed = capsys.readouterr().out
    printed = printed.replace(f"{folder}/home", "$HOME").replace(str(folder), "$PWD")
    assert shlex.split(re.sub(r"--rdzv-id \d+", "--rdzv-id 1", printed)) == shlex.split(shown)


@pytest.mark.parametrize("page", ["README.md", "docs/launching.md"])
def test_docker_lines_share_memory_and_mount_data_and_cache(page: str) -> None:
    lines = re.findall(r"^docker run .*$", (ROOT / page).read_text(encoding="utf-8"), flags=re.M)
    assert {bool(re.search(f" -m nemo_cosmos {verb} ", line)) for line in lines for verb in ("train", "prepare")}
    for line in lines:
        assert {"--rm", "--ipc=host", "--ulimit=memlock=-1", "--ulimit=stack=67108864"} <= set(line.split())
        assert "--gpus=" in line and ":/workspace/run" in line and "huggingface:/cache/huggingface" in line
