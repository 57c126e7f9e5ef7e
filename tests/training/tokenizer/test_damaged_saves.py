"""A tokenizer's run that finds its newest save damaged says so, and goes back to the one before when asked."""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path

import pytest
import torch

from nemo_cosmos import cli
from nemo_cosmos.checksums import beside, verify
from nemo_cosmos.training.tokenizer.checkpoint import latest_checkpoint, save_checkpoint
from nemo_cosmos.training.tokenizer.trainer import train
from tests.damage import DAMAGES, damage
from tests.training.tokenizer.test_trainer import TINY, clips, configure, records, weights

__all__ = ["clips"]


@pytest.fixture(scope="module")
def saved(clips: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four steps, saved after each second one."""
    output = tmp_path_factory.mktemp("saved") / "run"
    train(configure(clips, output, "checkpoint.export_jit=true"))
    return output


@pytest.fixture
def run(saved: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(saved, tmp_path / "run"))


def test_every_file_has_its_checksum(saved: Path) -> None:
    files = [file for file in (saved / "checkpoints").iterdir() if file.suffix in (".pt", ".jit")]
    assert len(files) == 8
    assert all(verify(file, "full") for file in files)


@pytest.mark.parametrize("kind", [kind for kind in DAMAGES if kind != "gone"])
def test_the_command_names_the_file(
    kind: str, clips: Path, run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = run / "checkpoints" / "iter_000000004.pt"
    damage(file, kind)
    words = ["experiment=demo_tokenizer", f"data.train={clips}/*.mp4", f"data.val={clips}/[01].mp4"]
    words += [f"output_dir={run}", TINY]
    words += ["model.preset=CV4x8x8-360p", "trainer.device=cpu", "data.num_frames=5", "data.crop=[16,16]"]
    words += ["data.num_workers=0", "data.global_batch=2", "data.micro_batch=1", "checkpoint.statistics_clips=0"]
    monkeypatch.setattr(sys, "argv", ["nemo-cosmos", "tokenizer", "train", *words])
    monkeypatch.setattr(tempfile, "tempdir", str(run.parent))
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1 and lines[0].startswith(f"error: {file}: damaged, ")
    assert "start again with resume=previous to go on from iter_000000002.pt" in lines[0]


@pytest.mark.parametrize(("kind", "checksum"), [("flip", True), ("cut", False), ("gone", True)])
def test_the_save_before(kind: str, checksum: bool, clips: Path, saved: Path, run: Path) -> None:
    """Also where a save of an earlier version, without checksums, cannot be read."""
    file = run / "checkpoints" / "iter_000000004.pt"
    damage(file, kind)
    if not checksum:
        beside(file).unlink()
    left = file.read_bytes() if file.exists() else None
    train(configure(clips, run, "resume=previous"))
    found = weights(run, 4)
    assert all(torch.equal(found[name], tensor) for name, tensor in weights(saved, 4).items())
    wanted = ("step", "loss", "psnr", "lr", "grad_norm")
    assert [[r.get(k) for k in wanted] for r in records(run)] == [[r.get(k) for k in wanted] for r in records(saved)]
    aside = run / "checkpoints" / "damaged_iter_000000004.pt"
    assert (aside.read_bytes() if aside.exists() else None) == left


def test_checksums_go_with_their_files(tmp_path: Path) -> None:
    for step in (1, 2):
        save_checkpoint(tmp_path, step, {}, 1)
    assert latest_checkpoint(tmp_path) == tmp_path / "iter_000000002.pt"
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "iter_000000002.pt", "iter_000000002.pt.checksums.json", "latest_checkpoint.txt",
    ]  # fmt: skip
