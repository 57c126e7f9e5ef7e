"""The wheels for a node without network: the pinned list and its two sizes."""

from __future__ import annotations

import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

TOOLS = Path(__file__).parents[1] / "tools"


def test_every_line_of_the_list_is_one_pinned_package() -> None:
    lines = [line for line in (TOOLS / "wheelhouse-py3.12.txt").read_text().splitlines() if not line.startswith("#")]
    pattern = re.compile(r"([A-Za-z0-9._-]+)==[^ =]+(  # (source only|all))?")
    matches = [pattern.fullmatch(line) for line in lines]
    assert all(matches), [line for line, match in zip(lines, matches, strict=True) if not match]
    names = [match[1].lower().replace("_", "-") for match in matches if match]
    assert len(set(names)) == len(names), "two versions of one package stop the whole installation"


def test_the_larger_size_adds_what_video_needs() -> None:
    read_list = runpy.run_path(str(TOOLS / "wheelhouse.py"))["read_list"]

    def names(size: str) -> set[str]:
        wheels, sources = read_list(TOOLS / "wheelhouse-py3.12.txt", size)
        return {line.split("==")[0].lower() for line in [*wheels, *sources]}

    assert {"megatron-core", "nemo-toolkit", "lightning", "wget"} <= names("train")
    assert names("all") - names("train") == {"av", "diffusers"}
    assert "wandb" not in names("all")


def test_an_unknown_python_names_the_lists_there_are(tmp_path: Path) -> None:
    command = [sys.executable, str(TOOLS / "wheelhouse.py"), str(tmp_path), "--python", "2.7"]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 2
    assert "there is wheelhouse-py3.12.txt" in result.stderr


def test_the_collection_for_a_node(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What pip is asked for, on a node that has two of the packages, and the line that is printed."""
    calls: list[list[str]] = []

    def call(command: list[str], *, check: bool) -> None:
        calls.append([Path(word).read_text() if word.endswith(".txt") else word for word in command])

    (tmp_path / "node.txt").write_text("Rich==15.0.0\nmegatron_core==0.16.1\nlightning==2.0\n-e git+https://x\n")
    options = ["--python", "3.11", "--machine", "aarch64", "--installed", str(tmp_path / "node.txt")]
    monkeypatch.setattr(sys, "argv", ["wheelhouse.py", str(tmp_path / "wheels"), *options])
    monkeypatch.setattr(subprocess, "run", call)
    runpy.run_path(str(TOOLS / "wheelhouse.py"), run_name="__main__")
    download, wheel = calls
    asked = download[download.index("-r") + 1].split("\n")
    assert "lightning==2.4.0" in asked and not [line for line in asked if line.startswith(("rich==", "megatron"))]
    assert download[download.index("--python-version") + 1] == "3.11"
    platforms = [word for word in download if word.startswith("manylinux")]
    assert platforms and all(word.endswith("_aarch64") for word in platforms)
    assert wheel[-1] == str(TOOLS.parent) and "wget==3.2" in wheel  # This package goes along.
    printed = capsys.readouterr().out
    assert "python -m pip install --no-index --no-deps --upgrade --target ~/site wheels/*.whl" in printed
