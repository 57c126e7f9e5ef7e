"""Generation from damaged files ends in one line that names the file, before a video is begun."""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path

import pytest

from nemo_cosmos import cli
from tests.damage import DAMAGES, damage
from tests.inference.runs import write_models


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    write_models(folder)
    return folder


@pytest.mark.parametrize("kind", DAMAGES)
@pytest.mark.parametrize(
    "name",
    ["run/checkpoints/iter_000000007_ema_model.pt", "tokenizer/model.safetensors", "tokenizer/config.json"],
)
def test_generate(
    name: str,
    kind: str,
    models: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = Path(shutil.copytree(models, tmp_path / "models"))
    damage(folder / name, kind)
    words = ["--model", folder / "run", "--tokenizer", folder / "tokenizer", "--text-encoder", folder / "text"]
    words += ["--output", tmp_path / "out", "--input", folder / "clip.mp4", "--prompt", "a disc", "--no-guardrail"]
    words += ["--height", "32", "--width", "48", "--num-frames", "9", "--num-steps", "2"]
    monkeypatch.setattr(sys, "argv", ["nemo-cosmos", "generate", *map(str, words)])
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    missing_export = f"{folder / 'run/checkpoints/iter_000000007'}: no such save"
    assert len(lines) == 1
    assert lines[0].startswith(f"error: {folder / name}: ") or (kind == "gone" and missing_export in lines[0])
    assert not list(tmp_path.glob("out/*"))
