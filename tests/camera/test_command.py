"""`nemo-cosmos camera`: pictures of trajectories, and mistakes in one line."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from PIL import Image

from nemo_cosmos import cli
from nemo_cosmos.camera.presets import PRESETS
from tests.camera.pose_files import write_transforms
from tests.camera.test_rays import walk


def run(monkeypatch: pytest.MonkeyPatch, *words: object) -> int:
    monkeypatch.setattr(sys, "argv", ["nemo-cosmos", "camera", *map(str, words)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    return int(ended.value.code or 0)


def test_show_draws_names_and_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_transforms(tmp_path / "t.json", walk(12), k1=0.1)
    for spec, frames in (("orbit_left:30deg+crane_up", 57), (tmp_path / "t.json", 9)):
        out = tmp_path / "new/plot.png"
        assert run(monkeypatch, "show", spec, "--out", out, "--frames", frames, "--size", "64x96") == 0
        said = capsys.readouterr()
        assert f"{frames} frames of 96 x 64" in said.out and f"{out}: trajectory and rays" in said.out
        with Image.open(out) as image:
            assert image.size[0] == 1200 and image.size[1] > 600
        out.unlink()
    assert "t.json names lens distortion" in said.err


def test_every_name_is_listed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(monkeypatch, "presets") == 0
    said = capsys.readouterr().out
    assert all(name in said for name in PRESETS) and "…" not in said


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["orbitleft"], "did you mean orbit_left"),
        (["dolly_in", "--frames", "56"], "such as 49 or 57"),
        (["dolly_in", "--size", "60x96"], "multiples of 8"),
        (["dolly_in", "--out", "plot.svg"], ".png or .jpg"),
        (["dolly_in", "--out", "folder"], "folder is a folder"),
        (["dolly_in", "--start", "3"], "--start 3"),
        (["few.json", "--frames", "9"], "has 8 poses"),
        (["broken.json"], "broken.json is damaged"),
        (["absent.json"], "absent.json does not exist"),
    ],
)
def test_mistakes_are_one_line(
    words: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    (tmp_path / "broken.json").write_text('{"frames": [')
    write_transforms(tmp_path / "few.json", walk(8))
    before = sorted(tmp_path.rglob("*"))
    assert run(monkeypatch, "show", *words) == 2
    said = capsys.readouterr().err
    assert message in said and said.count("error: ") == 1 and "Traceback" not in said
    assert sorted(tmp_path.rglob("*")) == before
