"""`nemo-cosmos doctor`: each check says what it found and, where something is missing, what to do."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from typer.testing import CliRunner

from nemo_cosmos.checkpoint.files import save_tensors
from nemo_cosmos.cli import app
from nemo_cosmos.commands import doctor
from nemo_cosmos.config import TrainConfig
from nemo_cosmos.doctor import all_reduce, compute, machine
from nemo_cosmos.doctor.experiment import check_experiment, resolve
from nemo_cosmos.doctor.finding import Finding
from nemo_cosmos.errors import InputError
from nemo_cosmos.models.dit import DiTConfig, build_dit
from tests.parallel.runs import SMALL
from tests.training.shards import write_shards


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_shards(tmp_path_factory.mktemp("data") / "shards", shape=(3, 4, 6))


def words(shards: Path, folder: Path, *more: str) -> list[str]:
    return [
        "experiment=demo_video2world", "model.preset=tiny-video2world", "model.init_from=null",
        f"data.path={shards}", "data.tokenizer=null", f"model.overrides={SMALL}",
        f"output_dir={folder / 'run'}", *more,
    ]  # fmt: skip


def found(overrides: list[str]) -> dict[str, Finding]:
    return {finding.subject: finding for finding in check_experiment(resolve(overrides))}


def test_an_experiment_that_can_start(shards: Path, tmp_path: Path) -> None:
    config = resolve(words(shards, tmp_path))
    assert isinstance(config, TrainConfig)
    net = build_dit(DiTConfig.preset(config.model.preset, **config.model.overrides), seed=1)
    save_tensors(tmp_path / "model.pt", net.to_original())
    report = found(words(shards, tmp_path, f"model.init_from={tmp_path / 'model.pt'}"))
    assert {finding.verdict for finding in report.values()} == {"ok"}, report
    assert "8 samples" in report["dataset"].text and "(16, 3, 4, 6)" in report["dataset"].text
    assert "no splitting (1 replica) on 1" in report["layout"].text
    assert "model.pt fits tiny-video2world" in report["weights"].text
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("override", "subject", "said"),
    [
        ("data.path=nowhere", "dataset", "data.path=nowhere is not there: make it with nemo-cosmos prepare"),
        ("data.tokenizer=Wan2.1-VAE", "dataset", "prepare the clips again with that tokenizer"),
        ("model.overrides.text_width=32", "dataset", "text embeddings are 16 wide, the network takes 32"),
        ("model.init_from=nowhere.pt", "weights", "model.init_from=nowhere.pt is not there: download it"),
        ("lora.enabled=true", "weights", "give model.init_from"),
        ("trainer.devices=3", "layout", "data.global_batch=8 is not divisible"),
        ("objective=rectified_flow", "settings", "objective"),
        ("output_dir={shards}/manifest.json/run", "run folder", "is a file, not a folder; choose another output_dir"),
    ],
)
def test_what_keeps_an_experiment_from_starting(
    override: str, subject: str, said: str, shards: Path, tmp_path: Path
) -> None:
    finding = found(words(shards, tmp_path, override.format(shards=shards)))[subject]
    assert finding.verdict == "fail" and said in finding.text


def test_weights_of_another_network(shards: Path, tmp_path: Path) -> None:
    other = build_dit(DiTConfig.preset("tiny-predict2-video2world"), seed=1)
    save_tensors(tmp_path / "model.pt", other.to_original())
    finding = found(words(shards, tmp_path, f"model.init_from={tmp_path / 'model.pt'}"))["weights"]
    assert finding.verdict == "fail" and "model.init_from" in finding.text


def test_a_released_network_needs_more_memory_than_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 8)
    monkeypatch.setattr("torch.cuda.mem_get_info", lambda index=0: (40 * 2**30, 40 * 2**30))
    report = found(["experiment=video2world_7b_example_hdvila"])
    assert report["layout"].verdict == "ok" and "on 8 GPUs: torchrun --nproc_per_node=8" in report["layout"].text
    assert report["memory"].verdict == "fail" and "16×88×160" in report["memory"].text
    assert "nemo-cosmos plan experiment=video2world_7b_example_hdvila" in report["memory"].text
    monkeypatch.setattr("torch.cuda.mem_get_info", lambda index=0: (80 * 2**30, 80 * 2**30))
    assert found(["experiment=video2world_7b_example_hdvila"])["memory"].verdict == "ok"
    monkeypatch.setattr("torch.cuda.device_count", lambda: 6)
    report = found(["experiment=video2world_7b_example_hdvila"])
    assert report["layout"].verdict == "fail" and "start a multiple of 8 processes" in report["layout"].text


def test_an_experiment_of_a_tokenizer(tmp_path: Path) -> None:
    words = ["experiment=demo_tokenizer", f"output_dir={tmp_path}", f"data.train={tmp_path}/*.mp4", "data.val=null"]
    report = found(words)
    assert report["dataset"].verdict == "fail" and "no video matches" in report["dataset"].text
    (tmp_path / "a.mp4").touch()
    report = found(words)
    assert {finding.verdict for finding in report.values()} == {"ok"}, report


def test_the_command_with_an_experiment(shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_training_run", "_sums", "_generation"):
        monkeypatch.setattr(doctor, name, lambda: [Finding("ok", "training", "left out")])
    result = CliRunner().invoke(app, ["doctor", *words(shards, tmp_path)], env={"COLUMNS": "200"})
    assert result.exit_code == 0, result.output
    assert "ok  dataset: 8 samples" in result.output and "the experiment can start" in result.output
    assert "ok  network: forward and backward of 2 layers" in result.output and "ok  attention: " in result.output
    result = CliRunner().invoke(app, ["doctor", *words(shards, tmp_path, "data.path=nowhere")])
    assert result.exit_code == 1 and "problems found: 1" in result.output


@pytest.mark.parametrize(
    "arguments", [["experiment=nothing"], ["seed=1"], ["quickly"], ["experiment=demo_video2world", "sed=1"]]
)
def test_wrong_arguments_end_before_anything_is_looked_at(arguments: list[str]) -> None:
    result = CliRunner().invoke(app, ["doctor", *arguments])
    assert isinstance(result.exception, InputError) and not result.output


def test_sums_over_processes() -> None:
    (finding,) = all_reduce.check_all_reduce("gloo", 3, "do this")
    assert finding.verdict == "ok" and "3 pairs of processes" in finding.text and "GiB/s" in finding.text


def test_sums_that_fail_say_why_and_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", shutil.which("false"))
    (finding,) = all_reduce.check_all_reduce("gloo", 2, "do this")
    assert finding.verdict == "fail" and "exit status 1" in finding.text and finding.text.endswith("do this")


def test_the_attention_that_is_taken_is_named() -> None:
    assert compute.attention_backend("cpu", torch.float32, heads=2) == "flash (CPU)"
    with sdpa_kernel(SDPBackend.MATH):
        assert compute.attention_backend("cpu", torch.float32, heads=2) == compute.UNFUSED


@pytest.mark.parametrize(
    ("runtime", "driver", "verdict"),
    [("12.8", ("535.1", "12.2"), "ok"), ("13.0", ("570.2", "12.8"), "fail"), ("12.8", ("580.1", "13.0"), "ok")],
)
def test_a_driver_older_than_the_runtime(runtime: str, driver: tuple[str, str], verdict: str) -> None:
    finding = machine.compare_driver(runtime, driver)
    assert finding.verdict == verdict and (verdict == "ok" or "update the driver" in finding.text)


SMI = "| NVIDIA-SMI 570.86.15    Driver Version: 570.86.15    CUDA Version: 12.8 |"


@pytest.mark.parametrize(
    ("script", "cuda", "verdict", "said"),
    [
        (None, None, "note", "no GPU"),
        (f"echo '{SMI}'", None, "fail", "is built for the CPU: install the CUDA build"),
        (f"echo '{SMI}'", "13.0", "fail", "update the driver"),
        (f"echo '{SMI}'", "12.8", "fail", "CUDA_VISIBLE_DEVICES"),
        ("echo broken; exit 9", "12.8", "fail", "load the driver"),
    ],
)
def test_why_torch_sees_no_gpu(
    script: str | None, cuda: str | None, verdict: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if script is not None:
        (tmp_path / "nvidia-smi").write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / "nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr("torch.version.cuda", cuda)
    (finding,) = machine.check_devices()
    assert finding.verdict == verdict and said in finding.text


def usage(**values: int) -> Any:
    return lambda path: SimpleNamespace(**values)


def test_disks_and_shared_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OUTPUT_ROOT", str(tmp_path / "not" / "yet"))
    monkeypatch.setattr(shutil, "disk_usage", usage(free=2**30, total=2**26))
    output, cache = machine.check_disk()
    assert output.verdict == "note" and "set OUTPUT_ROOT" in output.text and "not/yet" in output.text
    assert cache.verdict == "note" and "set HF_HOME" in cache.text
    (shared,) = machine.check_shared_memory()
    assert shared.verdict == "note" and "--ipc=host" in shared.text


def test_a_token_is_found_and_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    token = "hf_abcdefghijklmnopqrst"
    monkeypatch.setenv("HF_TOKEN", token)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    (finding,) = machine.check_hugging_face()
    assert finding.verdict == "ok" and "the environment" in finding.text and token not in finding.text
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    offline, login = machine.check_hugging_face()
    assert "HF_HUB_OFFLINE" in offline.text and "huggingface-cli login" in login.text
