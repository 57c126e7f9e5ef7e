"""What a run folder keeps about each start of its run."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from pathlib import Path

import pytest

from nemo_cosmos.config import TrainConfig, load_config
from nemo_cosmos.provenance import shown_command, source_revision, versions
from nemo_cosmos.run_folder import STARTS, append_start, write_config


def test_each_start_adds_a_line_and_is_logged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("HF_TOKEN", "a-secret-of-the-user")
    monkeypatch.setattr(
        sys, "orig_argv", ["python", "run me.py", "experiment=demo_video2world", "a-secret-of-the-user"]
    )
    config = load_config(TrainConfig, ["experiment=demo_video2world"])
    with caplog.at_level(logging.INFO, "nemo_cosmos"):
        write_config(tmp_path, config, resuming=False)
    with caplog.at_level(logging.WARNING, "nemo_cosmos"):
        write_config(tmp_path, config, resuming=True)
    first, second = map(json.loads, (tmp_path / STARTS).read_text(encoding="utf-8").splitlines())
    assert (first["resuming"], second["resuming"]) == (False, True)
    assert first["command"] == "python 'run me.py' experiment=demo_video2world '***'"
    assert first["versions"].keys() >= {"nemo_cosmos", "python", "torch", "nemo_toolkit", "megatron-core", "cuda"}
    assert first["processes"] == 1 and first["device"] and first["host"]
    assert '"max_steps": 180' in caplog.text and '"command": "python' in caplog.text
    assert "a-secret" not in caplog.text + (tmp_path / STARTS).read_text()


def test_a_line_cut_off_by_a_kill_stays_alone(tmp_path: Path) -> None:
    (tmp_path / STARTS).write_text('{"time": "20')
    append_start(tmp_path / STARTS, {"time": "now"})
    assert (tmp_path / STARTS).read_text() == '{"time": "20\n{"time": "now"}\n'


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        (
            ["run", "api_key=12345678", "--hf-token", "x", "--token=y", "seed=3"],
            "run 'api_key=***' --hf-token '***' '--token=***' seed=3",
        ),
        (["run", "hf_abcdefghijklmnopqrstuv"], "run '***'"),
        (["git", "https://me:word@host/x"], "git 'https://***@host/x'"),
    ],
)
def test_commands_are_shown_without_secrets(words: list[str], shown: str) -> None:
    assert shown_command(words) == shown


def test_the_revision_of_a_checkout(tmp_path: Path) -> None:
    def git(*words: str) -> str:
        identity = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false"]
        return subprocess.run(
            ["git", *identity, "-C", str(tmp_path), *words], check=True, capture_output=True, text=True
        ).stdout.strip()

    package = tmp_path / "nemo_cosmos"
    package.mkdir()
    (package / "a.py").write_text("a = 1\n")
    git("init", "-q")
    git("add", ".")
    git("commit", "-qm", "first")
    assert source_revision(package) == {"commit": git("rev-parse", "HEAD"), "changed": False}
    (package / "a.py").write_text("a = 2\n")
    assert source_revision(package) == {"commit": git("rev-parse", "HEAD"), "changed": True}


def test_a_missing_package_has_no_version(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nemo_cosmos.provenance.PACKAGES", ("no-such-package",))
    assert versions()["no-such-package"] is None
