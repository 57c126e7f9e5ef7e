"""Clips that the tiny model is judged on are none that it was trained on, and a missed bar is a failure."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from nemo_cosmos.data.embeddings import file_digest
from nemo_cosmos.demo import checks
from nemo_cosmos.demo.checks import check_data, check_rendered, check_tokenizer, require_unseen, trained_on
from nemo_cosmos.demo.sizes import SIZES
from nemo_cosmos.errors import InputError
from nemo_cosmos.tiny import FOLDER
from tests.demo.standin import write_clip, write_training_list

ROOT = Path(__file__).parents[2]
PUBLIC_CLIPS = Path(__file__).with_name("public_clips.json")
"""Names and SHA-256 of public clips and a picture that the model is judged on."""


def test_no_clip_that_the_model_is_judged_on_was_trained_on() -> None:
    judged = json.loads(PUBLIC_CLIPS.read_text(encoding="utf-8"))
    assert len(judged) == 16 and all(len(one["sha256"]) == 64 for one in judged)
    seen = trained_on(FOLDER)
    assert not {one["sha256"] for one in judged} & set(seen)
    assert not {one["name"] for one in judged} & {Path(name).name for name in seen.values()}


def test_a_clip_of_the_training_list_is_refused_by_its_content(tmp_path: Path) -> None:
    clip = write_clip(tmp_path, "renamed", frames=9)
    write_training_list(tmp_path, file_digest(clip).upper())
    with pytest.raises(InputError, match=r"renamed\.mp4 is in the training list .* landscape/train_00000"):
        require_unseen([clip], tmp_path)


def test_a_training_list_that_says_nothing_proves_nothing(tmp_path: Path) -> None:
    file = tmp_path / "training_list.json"
    for content in ('{"clips": []}', "[", None):
        file.unlink() if content is None else file.write_text(content, encoding="utf-8")
        with pytest.raises(InputError, match=r"training_list\.json"):
            trained_on(tmp_path)


def test_tokenizer_is_measured_on_each_clip(weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_clip(tmp_path, "long", frames=40)
    write_clip(tmp_path, "short", frames=6)
    assert check_tokenizer(tmp_path, weights, None)
    lines = capsys.readouterr().out.splitlines()
    assert "none of the 2 clips is among its 1 files, by sha256" in lines[0]
    assert [line.split(":")[0] for line in lines[1:]] == [
        "tokenizer, videos/long.mp4", "tokenizer, videos/short.mp4", "tokenizer, mean of 2 clips",
    ]  # fmt: skip
    assert not check_tokenizer(tmp_path, weights, 90.0)
    assert "(at least 90.00 dB: missed)" in capsys.readouterr().out


def figures(**psnr: float) -> dict[str, Any]:
    return {"count": 1, **{key: {"psnr_db": value} for key, value in psnr.items()}}


@pytest.mark.parametrize(
    ("base", "trained", "bar", "good"),
    [(20.0, 25.0, None, True), (20.0, 25.0, 24.0, True), (20.0, 23.9, 24.0, False), (14.9, 25.0, None, False)],
)
def test_rendered_clips_ask_for_a_base_that_beats_no_motion(
    base: float, trained: float, bar: float | None, good: bool, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = {"held_out_windows": figures(base=base, post_trained=trained, frozen=15.0)}
    monkeypatch.setattr(checks, "_demo", lambda *arguments: found)
    assert check_rendered(Path("out"), weights, bar, SIZES["smoke"]) is good


def test_base_is_judged_over_all_rendered_windows(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = {
        "held_out_windows": {**figures(base=16.0, post_trained=25.0, frozen=15.0), "count": 3},
        "held_out_scenes": figures(base=15.0, post_trained=25.0, frozen=17.0),
    }
    monkeypatch.setattr(checks, "_demo", lambda *arguments: found)
    assert check_rendered(Path("out"), weights, None, SIZES["smoke"])
    found["held_out_scenes"]["count"] = 2
    assert not check_rendered(Path("out"), weights, None, SIZES["smoke"])


@pytest.mark.parametrize(
    ("groups", "bar", "good"),
    [
        ({"held_out_windows": 23.0, "held_out_scenes": 12.0}, 22.0, True),
        ({"held_out_windows": 21.0, "held_out_scenes": 30.0}, 22.0, False),
        ({"training_windows": 40.0}, 22.0, False),
        ({"training_windows": 40.0}, None, True),
    ],
)
def test_the_bar_of_a_folder_is_for_held_out_windows(
    groups: dict[str, float], bar: float | None, good: bool, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = {kind: figures(post_trained=value) for kind, value in groups.items()}
    monkeypatch.setattr(checks, "_demo", lambda *arguments: found)
    assert check_data(Path("out"), Path("in"), weights, bar, SIZES["smoke"]) is good


@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        (["tokenizer"], 2, "tokenizer needs --data"),
        (["rendered", "--data", "x"], 2, "rendered takes no --data"),
        (["data", "--data", "nowhere", "--checkpoint-dir", "nothing"], 2, "expected a folder in the layout of"),
    ],
)
def test_mistakes_end_with_one_line(words: list[str], status: int, message: str, tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "tools/tiny_checks.py"), *words]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, env=environment)
    assert result.returncode == status and message in result.stderr and "Traceback" not in result.stderr
