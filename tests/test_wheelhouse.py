"""The wheels for a node without network: the pinned list, and the stand-in for a package that is only imported."""

from __future__ import annotations

import re
import runpy
import subprocess
import sys
from pathlib import Path

TOOLS = Path(__file__).parents[1] / "tools"


def test_every_line_of_the_list_is_one_pinned_package() -> None:
    lines = [line for line in (TOOLS / "wheelhouse-py3.12.txt").read_text().splitlines() if not line.startswith("#")]
    pattern = re.compile(r"([A-Za-z0-9._-]+)==[^ =]+(  # source only)?")
    matches = [pattern.fullmatch(line) for line in lines]
    assert all(matches), [line for line, match in zip(lines, matches, strict=True) if not match]
    names = [match[1].lower().replace("_", "-") for match in matches if match]
    assert len(set(names)) == len(names), "two versions of one package stop the whole installation"
    assert {"megatron-core", "nemo-toolkit", "diffusers"} <= set(names)


def test_the_stand_in_is_a_wheel_that_pip_installs(tmp_path: Path) -> None:
    runpy.run_path(str(TOOLS / "wheelhouse.py"))["write_empty_package"](tmp_path, "wandb")
    site = tmp_path / "site"
    pip = [sys.executable, "-m", "pip", "install", "-q", "--no-index", "--no-deps", "--target", str(site)]
    subprocess.run([*pip, str(tmp_path / "wandb-0-py3-none-any.whl")], check=True, capture_output=True)
    assert (site / "wandb.py").read_text() == ""


def test_an_unknown_python_names_the_lists_there_are(tmp_path: Path) -> None:
    command = [sys.executable, str(TOOLS / "wheelhouse.py"), str(tmp_path), "--python", "2.7"]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 2
    assert "there is wheelhouse-py3.12.txt" in result.stderr
