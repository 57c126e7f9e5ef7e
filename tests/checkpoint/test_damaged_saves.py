"""Damage to a save or an export is refused in one line that names the file, by the commands that users run."""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from nemo_cosmos import cli
from nemo_cosmos.checkpoint.convert import convert
from nemo_cosmos.checkpoint.files import latest_step, saved_steps
from nemo_cosmos.checkpoint.load import load_network, load_original_file
from nemo_cosmos.checkpoint.lora import read_adapter
from nemo_cosmos.checksums import read_manifest, verify
from nemo_cosmos.errors import InputError
from nemo_cosmos.training.run import train
from tests.checkpoint.conftest import LORA
from tests.damage import DAMAGES, damage
from tests.parallel.processes import run_processes
from tests.parallel.runs import losses, small_overrides, small_run

STEPS = ("trainer.max_steps=6", "checkpoint.every_n_steps=2", "parallel.tensor=2")


@pytest.fixture(scope="module")
def saved(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six steps of two tensor ranks, saved after each second one."""
    output = tmp_path_factory.mktemp("saved") / "run"
    run_processes(2, train, small_run(shards, output, *STEPS), log=output / "logs")
    return output


@pytest.fixture
def run(saved: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(saved, tmp_path / "run"))


@pytest.fixture
def refused(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Callable[..., str]:
    """Runs a command in this process and gives the one line that it ends with."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))

    def call(*words: object) -> str:
        monkeypatch.setattr(sys, "argv", ["nemo-cosmos", *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        assert ended.value.code == 2
        lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
        assert len(lines) == 1
        return lines[0]

    return call


def newest(run: Path) -> Path:
    return run / "checkpoints" / "iter_000000006"


def largest(folder: Path) -> Path:
    return max(folder.glob("*.distcp"), key=lambda file: file.stat().st_size)


def test_the_manifest_lists_what_both_ranks_wrote(saved: Path) -> None:
    for step in (2, 4, 6):
        folder = saved / "checkpoints" / f"iter_{step:09d}" / "weights"
        listed = set(read_manifest(folder / "checksums.json"))
        assert listed | {"checksums.json"} == {file.name for file in folder.iterdir()}
        assert {name[:4] for name in listed if name.endswith(".distcp")} == {"__0_", "__1_"}
        assert {".metadata", "common.pt", "metadata.json"} < listed
        assert verify(folder, "full")
        for weights in ("reg", "ema"):
            assert verify(saved / "checkpoints" / f"iter_{step:09d}_{weights}_model.pt", "full")


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        (name, kind)
        for name in (".metadata", "common.pt", "distcp")
        for kind in DAMAGES
        if (name, kind) != ("distcp", "flip")
    ],
)
def test_a_save_that_is_resumed(
    name: str, kind: str, shards: Path, run: Path, refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """All but a changed bit among the tensors is found before there are processes; that one is the next test's."""
    folder = newest(run) / "weights"
    file = largest(folder) if name == "distcp" else folder / name
    damage(file, kind)
    line = refused("train", *small_overrides(shards, run, "trainer.max_steps=6"))
    assert f"error: {file}: " in line and "expected" in line
    assert "start again with resume=previous to go on from iter_000000004" in line


def test_a_changed_bit_among_the_tensors(shards: Path, saved: Path, run: Path) -> None:
    """Refused by both ranks; with ``resume=previous`` the run goes on as if the save had not been made."""
    file = largest(newest(run) / "weights")
    damage(file, "flip")
    damaged = file.read_bytes()
    with pytest.raises(RuntimeError, match=r"ranks \[0, 1\] of 2 failed"):
        run_processes(2, train, small_run(shards, run, *STEPS), log=run / "logs1")
    for rank in (0, 1):
        log = (run / "logs1" / f"rank{rank}.log").read_text()
        assert f"InputError: {file}: damaged, found the CRC-32" in log
        assert "start again with resume=previous to go on from iter_000000004" in log
    assert (latest_step(run / "checkpoints"), saved_steps(run / "checkpoints")) == (6, [2, 4, 6])
    run_processes(2, train, small_run(shards, run, *STEPS, "resume=previous"), log=run / "logs2")
    log = (run / "logs2" / "rank0.log").read_text()
    assert "resume=previous: the run goes on from step 4" in log
    assert losses(run) == losses(saved)
    steps = [json.loads(line)["step"] for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert steps == [1, 2, 3, 4, 5, 6]
    assert (latest_step(run / "checkpoints"), saved_steps(run / "checkpoints")) == (6, [2, 4, 6])
    aside = run / "checkpoints" / f"damaged_{newest(run).name}"
    assert (aside / "weights" / file.name).read_bytes() == damaged
    found, expected = (load_original_file(r / "checkpoints" / "iter_000000006_ema_model.pt") for r in (run, saved))
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())


def test_two_damaged_saves_and_one_without_checksums(shards: Path, saved: Path, run: Path) -> None:
    """The index of one, a missing file of the next; the one of an earlier version is taken as it is."""
    checkpoints = run / "checkpoints"
    damage(newest(run) / "weights" / ".metadata", "flip")
    damage(largest(checkpoints / "iter_000000004" / "weights"), "gone")
    (checkpoints / "iter_000000002" / "weights" / "checksums.json").unlink()
    run_processes(2, train, small_run(shards, run, *STEPS, "resume=previous"), log=run / "logs2")
    log = (run / "logs2" / "rank0.log").read_text()
    assert "the run goes on from step 2" in log
    assert "iter_000000002: no checksums beside it, taken unverified" in log
    assert losses(run) == losses(saved)
    assert {"damaged_iter_000000004", "damaged_iter_000000006"} < {path.name for path in checkpoints.iterdir()}


def test_no_save_is_whole(shards: Path, run: Path, refused: Callable[..., str]) -> None:
    for step in (2, 4, 6):
        damage(run / "checkpoints" / f"iter_{step:09d}" / "weights" / "common.pt", "cut")
    before = sorted(path.name for path in (run / "checkpoints").iterdir())
    line = refused("train", *small_overrides(shards, run, "resume=previous"))
    assert "iter_000000002/weights/common.pt: damaged" in line and "there is no earlier save" in line
    assert sorted(path.name for path in (run / "checkpoints").iterdir()) == before


@pytest.mark.parametrize("kind", DAMAGES)
def test_an_exported_file(kind: str, saved: Path, tmp_path: Path, refused: Callable[..., str]) -> None:
    checkpoints = saved / "checkpoints"
    for name in ("model_config.json", "iter_000000006_ema_model.pt", "iter_000000006_ema_model.pt.checksums.json"):
        shutil.copy(checkpoints / name, tmp_path / name)
    file = tmp_path / "iter_000000006_ema_model.pt"
    damage(file, kind)
    line = refused("convert", file, tmp_path / "out.pt")
    assert f"error: {file}: " in line
    with pytest.raises(InputError, match=r"iter_000000006_ema_model\.pt"):
        load_network(file)
    assert not (tmp_path / "out.pt").exists()


def test_sizes_alone(saved: Path, tmp_path: Path, refused: Callable[..., str]) -> None:
    for name in ("model_config.json", "iter_000000006_ema_model.pt", "iter_000000006_ema_model.pt.checksums.json"):
        shutil.copy(saved / "checkpoints" / name, tmp_path / name)
    file = tmp_path / "iter_000000006_ema_model.pt"
    damage(file, "flip")
    for verify_files in ("auto", "full"):
        assert "damaged" in refused("convert", file, tmp_path / "out.pt", "--verify", verify_files)
    convert(file, tmp_path / "out.pt", "pt", verify="size")
    assert verify(tmp_path / "out.pt", "full")


@pytest.mark.parametrize("kind", DAMAGES)
def test_a_run_folder_is_converted(kind: str, run: Path, tmp_path: Path, refused: Callable[..., str]) -> None:
    """From the exported file where there is one, else from the save itself."""
    exported = run / "checkpoints" / "iter_000000006_ema_model.pt"
    damage(exported, kind)
    if kind != "gone":
        line = refused("convert", run, tmp_path / "out.pt")
        assert f"error: {exported}: damaged" in line and "take the weights of iter_000000006" in line
        exported.unlink()
    file = largest(newest(run) / "weights")
    damage(file, kind)
    line = refused("convert", run, tmp_path / "out.pt")
    assert f"error: {file}: " in line and "iter_000000002, iter_000000004" in line


@pytest.mark.parametrize("kind", DAMAGES)
def test_what_convert_wrote(kind: str, saved: Path, tmp_path: Path, refused: Callable[..., str]) -> None:
    convert(saved, tmp_path / "folder", "diffusers")
    convert(saved, tmp_path / "run", "run")
    transformer = tmp_path / "folder" / "diffusion_pytorch_model.safetensors"
    save = tmp_path / "run" / "checkpoints" / "iter_000000000" / "weights"
    assert verify(tmp_path / "folder", "full") and verify(save, "full")
    damage(transformer, kind)
    assert f"error: {transformer}: " in refused("convert", tmp_path / "folder", tmp_path / "out.pt")
    file = largest(save)
    damage(file, kind)
    assert f"error: {file}: " in refused("convert", tmp_path / "run", tmp_path / "out.pt")


@pytest.mark.parametrize("kind", DAMAGES)
def test_adapters(kind: str, adapted: Path, base: Path, tmp_path: Path, refused: Callable[..., str]) -> None:
    folder = Path(shutil.copytree(adapted / "checkpoints" / "iter_000000003_ema_lora", tmp_path / "adapter"))
    read_adapter(folder)
    for name in ("adapter_model.safetensors", "adapter_config.json"):
        whole = (folder / name).read_bytes()
        damage(folder / name, kind)
        line = refused("convert", base, tmp_path / "out.pt", "--adapter", folder)
        assert f"error: {folder / name}: " in line
        (folder / name).write_bytes(whole)


@pytest.mark.parametrize("kind", ["flip", "cut"])
def test_weights_to_start_from(kind: str, shards: Path, run: Path, tmp_path: Path) -> None:
    """A changed bit is found by the first process and told by all."""
    file = run / "checkpoints" / "iter_000000006_reg_model.pt"
    damage(file, kind)
    cfg = small_run(shards, tmp_path / "new", *LORA, f"model.init_from={file}", "parallel.tensor=2")
    with pytest.raises(RuntimeError, match=r"ranks \[0, 1\] of 2 failed"):
        run_processes(2, train, cfg, log=tmp_path / "logs")
    for rank in (0, 1):
        assert f"{file}: damaged, found" in (tmp_path / "logs" / f"rank{rank}.log").read_text()
