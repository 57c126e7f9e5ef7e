"""Tokenizer training that is interrupted, diverges or is given other settings: nothing is lost, nothing is silent."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from nemo_cosmos.config import load_config
from nemo_cosmos.data.video import write_mp4
from nemo_cosmos.errors import InputError
from nemo_cosmos.lock import TRAINING_LOCK, lock_folder
from nemo_cosmos.training.tokenizer import checkpoint
from nemo_cosmos.training.tokenizer.checkpoint import latest_checkpoint, read_checkpoint
from nemo_cosmos.training.tokenizer.config import TokenizerTrainConfig
from nemo_cosmos.training.tokenizer.trainer import TokenizerTrainer, train
from nemo_cosmos.training.tokenizer.validation import Validator
from tests.training.test_train_again import live_tensors


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("clips") / "clip.mp4"
    frames = torch.arange(0, 256, 8).view(1, 1, 1, 32) + 10 * torch.arange(8).view(1, 8, 1, 1)
    write_mp4(file, frames.expand(3, 8, 32, 32).clamp(0, 255).to(torch.uint8), 8.0)
    return file


def configure(clip: Path, run: Path, *overrides: str) -> TokenizerTrainConfig:
    return load_config(
        TokenizerTrainConfig,
        [
            "experiment=demo_tokenizer", f"data.train={clip}", f"output_dir={run}", "model.preset=CV4x8x8-360p",
            "model.overrides={channels:4,channels_mult:[1,2,2],num_res_blocks:1,chunk_frames:5}",
            "trainer.device=cpu", "data.num_frames=5", "data.crop=[16,16]", "data.num_workers=0",
            "data.global_batch=2", "data.micro_batch=1", "data.val=null", "checkpoint.statistics_clips=0",
            "checkpoint.export_jit=false", "checkpoint.every_n_steps=2", "trainer.max_steps=4",
            "trainer.log_every_n_steps=1", *overrides,
        ],
        root="tokenizer_train",
    )  # fmt: skip


@pytest.fixture(scope="module")
def saved(clip: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("saved") / "run"
    train(configure(clip, run))
    return run


@pytest.fixture
def run(saved: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(saved, tmp_path / "run"))


def records(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def signalling(call: Callable[..., Any], name: str) -> Callable[..., Any]:
    def with_signal(*args: Any, **kwargs: Any) -> Any:
        os.kill(os.getpid(), signal.Signals[name])
        return call(*args, **kwargs)

    return with_signal


@pytest.mark.parametrize(
    ("name", "where", "step"),
    [
        ("SIGTERM", (TokenizerTrainer, "_forward_backward"), 1),
        ("SIGINT", (Validator, "__call__"), 1),
        ("SIGUSR1", (checkpoint, "save_checkpoint"), 2),
    ],
    ids=["step", "validation", "save"],
)
def test_a_signal_ends_the_run_with_a_save(
    name: str, where: tuple[Any, str], step: int, clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)]
    monkeypatch.setattr(*where, signalling(getattr(*where), name))
    options = [f"data.val={clip}", "validation.every_n_steps=1", "validation.at_start=false"]
    with pytest.raises(SystemExit) as ended:
        train(configure(clip, tmp_path, *(options if where[0] is Validator else [])))
    assert ended.value.code == 128 + signal.Signals[name]
    found = latest_checkpoint(tmp_path / "checkpoints")
    assert found is not None and found.name == f"iter_{step:09d}.pt"
    assert records(tmp_path)[-1]["step"] == step
    assert not any("validation_psnr" in record for record in records(tmp_path))
    assert before == [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)]


def test_a_signal_before_the_first_step_ends_at_once(
    clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(TokenizerTrainer, "_restore", lambda *_: None)
    monkeypatch.setattr(TokenizerTrainer, "run", signalling(TokenizerTrainer.run, "SIGTERM"))
    with pytest.raises(SystemExit) as ended:
        train(configure(clip, tmp_path / "run"))
    assert ended.value.code == 143
    assert not list((tmp_path / "run").iterdir())


def poison(monkeypatch: pytest.MonkeyPatch, first: int, last: int) -> None:
    forward = TokenizerTrainer._forward_backward

    def spoilt(self: TokenizerTrainer, video: torch.Tensor, micro_steps: int) -> Any:
        if first <= self.step + 1 <= last:
            video = video.clone()
            video[0, 0, 0, 0, 0] = torch.nan
        return forward(self, video, micro_steps)

    monkeypatch.setattr(TokenizerTrainer, "_forward_backward", spoilt)


def test_a_bad_step_changes_nothing(
    clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    poison(monkeypatch, 3, 3)
    train(configure(clip, tmp_path, "checkpoint.every_n_steps=1", "checkpoint.keep=9"))
    found = {record["step"]: record for record in records(tmp_path)}
    assert [found[step]["skipped_steps"] for step in (1, 2, 3, 4)] == [0, 0, 1, 1]
    assert found[3]["loss"] is None and found[4]["loss"] is not None
    two, three, four = (read_checkpoint(tmp_path / "checkpoints" / f"iter_{n:09d}.pt")["model"] for n in (2, 3, 4))
    assert all(torch.equal(two[name], three[name]) for name in two)
    assert any(not torch.equal(two[name], four[name]) for name in two)
    assert "step 3 skipped: its loss or gradients are not finite; samples clip.mp4 frame" in caplog.text


def test_bad_steps_in_a_row_end_the_run(clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    poison(monkeypatch, 3, 9)
    with pytest.raises(SystemExit) as ended:
        train(configure(clip, tmp_path, "trainer.max_steps=9", "trainer.max_bad_steps=2"))
    assert ended.value.code == 3
    found = latest_checkpoint(tmp_path / "checkpoints")
    assert found is not None and found.name == "iter_000000002.pt"


def test_weights_that_are_not_finite_are_not_saved(clip: Path, tmp_path: Path) -> None:
    trainer = TokenizerTrainer(configure(clip, tmp_path))
    with torch.no_grad():
        next(trainer.module.parameters()).fill_(torch.inf)
    with pytest.raises(InputError, match="some weights are not finite and are not saved"):
        trainer._save()
    assert not (tmp_path / "checkpoints").exists()


def test_the_configuration_wins(clip: Path, run: Path, caplog: pytest.LogCaptureFixture) -> None:
    settings = ["optimizer.weight_decay=0.5", "optimizer.beta1=0.7", "optimizer.eps=1e-3"]
    trainer = TokenizerTrainer(configure(clip, run, *settings))
    group = trainer.optimizer.param_groups[0]
    assert (group["weight_decay"], group["betas"][0], group["eps"]) == (0.5, 0.7, 1e-3)
    assert trainer.optimizer.state[group["params"][0]]["step"] == 4
    train(configure(clip, run, *settings, "trainer.max_steps=5"))
    assert "optimizer.weight_decay=0.5, it was " in caplog.text and "optimizer.beta1=0.7, it was " in caplog.text


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["model.overrides={channels:8,channels_mult:[1,2,2],num_res_blocks:1,chunk_frames:5}"],
            "channels=4, the con",
        ),
        (["model.overrides={channels:4,channels_mult:[1,2,2],num_res_blocks:2,chunk_frames:5}"], "num_res_blocks=1"),
        (["ema.enabled=false"], "ema.enabled=true, the configuration says false"),
        (["loss.adversarial.enabled=true"], "has no discriminator"),
    ],
)
def test_what_cannot_change(overrides: list[str], message: str, clip: Path, run: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*") if path.is_file()}
    with pytest.raises(InputError, match=message):
        train(configure(clip, run, *overrides))
    assert before == {path: path.stat().st_mtime_ns for path in run.rglob("*") if path.is_file()}


def test_a_discriminator_does_not_vanish_or_change(clip: Path, tmp_path: Path) -> None:
    judged = ("loss.adversarial.enabled=true", "loss.adversarial.channels=4", "trainer.max_steps=1")
    train(configure(clip, tmp_path, *judged))
    with pytest.raises(InputError, match=r"loss\.adversarial\.enabled=true, the configuration says false"):
        train(configure(clip, tmp_path))
    with pytest.raises(InputError, match=r"discriminator does not fit loss\.adversarial.channels=8"):
        train(configure(clip, tmp_path, judged[0], "loss.adversarial.channels=8"))


def test_saves_without_the_file_that_names_the_newest(clip: Path, run: Path) -> None:
    (run / "checkpoints" / "latest_checkpoint.txt").unlink()
    shutil.copy(run / "checkpoints" / "iter_000000004.pt", run / "checkpoints" / "iter_000000002.pt")
    with pytest.raises(InputError, match=r"missing beside saves of steps 2, 4: write iter_000000004"):
        train(configure(clip, run))


def test_a_second_run_in_the_folder(clip: Path, run: Path) -> None:
    with lock_folder(run, TRAINING_LOCK), pytest.raises(InputError, match="is being trained in by process"):
        train(configure(clip, run, "trainer.max_steps=5"))
    assert not (run / "checkpoints" / "iter_000000005.pt").exists()


def test_a_second_run_in_a_process_holds_no_more(clip: Path, tmp_path: Path) -> None:
    held = []
    for name, precision in (("first", "fp32"), ("again", "fp32"), ("bf16", "bf16")):
        train(configure(clip, tmp_path / name, "trainer.max_steps=1", f"trainer.precision={precision}"))
        held.append(live_tensors())
    assert held[1] == held[0] and held[2] == held[0]


def test_an_error_begins_a_line_of_its_own(
    clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: Any) -> Any:
        raise InputError("clip.mp4 is gone")

    monkeypatch.setattr(TokenizerTrainer, "_train_step", fail)
    with pytest.raises(InputError):
        train(configure(clip, tmp_path))
    said = capsys.readouterr().err
    assert "0/" in said and said.endswith("\n")
