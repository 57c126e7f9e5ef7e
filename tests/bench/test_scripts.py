"""The scripts under bench/ run at their smallest size and write what they measured."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

BENCH = Path(__file__).parents[2] / "bench"


def run(script: str, *arguments: str) -> str:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        [sys.executable, str(BENCH / script), *arguments], capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def test_tokenizer(tmp_path: Path) -> None:
    size = ["--size", "32", "32", "--frames", "9", "--channels", "8"]
    target = tmp_path / "tokenizer.json"
    printed = run(
        "tokenizer.py", *size, "--device=cpu", "--dtype=fp32", "--repeats=1", "--no-compile", f"--json={target}"
    )
    rows = json.loads(target.read_text())
    kinds = [(variant, work) for variant in ("diffusers", "ours") for work in ("encode", "decode", "train")]
    kinds += [("ours, TorchScript", "encode"), ("ours, TorchScript", "decode")]
    assert {(row["variant"], row["work"]) for row in rows} == set(kinds)
    assert all(row["difference_from_fp32"] < 1e-5 for row in rows if row["work"] != "train")
    assert "decode: ours is" in printed


def test_transformer(tmp_path: Path) -> None:
    target = tmp_path / "dit.json"
    run("dit.py", "--smoke", "--skip-diffusers", f"--json={target}")
    assert [row["name"] for row in json.loads(target.read_text()) if "name" in row] == ["ours"]


def test_layouts(tmp_path: Path) -> None:
    printed = run("layouts.py", "--gpus=1", "--worlds", "1", "--only", "exact", "--smoke", f"--output={tmp_path}")
    (record,) = [json.loads(line) for line in (tmp_path / "layouts.jsonl").read_text().splitlines()]
    assert record["layout"] == "one" and len(record["losses"]) == 3
    assert "failed" not in printed


def test_scripts_hold_flags_alone() -> None:
    lines = {script.name: len(script.read_text(encoding="utf-8").splitlines()) for script in BENCH.glob("*.py")}
    assert lines
    assert max(lines.values()) <= 40, lines
