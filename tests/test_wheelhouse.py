"""The wheels for a node without network: the pinned list and its two sizes."""

from __future__ import annotations

import re
import runpy
import subprocess
import sys
from pathlib import Path

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
