"""The script that makes nemo-cosmos-tiny: its commands, its steps over several calls, and what it packs."""

from __future__ import annotations

import hashlib
import json
import os
import runpy
import signal
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from nemo_cosmos.atomic import write_json
from nemo_cosmos.checkpoint.files import save_tensors, weights_file
from nemo_cosmos.checkpoint.sources import open_weights
from nemo_cosmos.config import TrainConfig, load_config
from nemo_cosmos.errors import InputError
from nemo_cosmos.models.dit import DiTConfig, build_dit
from nemo_cosmos.models.dit.state_dict import check
from nemo_cosmos.models.text import save_tiny_text_encoder
from nemo_cosmos.models.tokenizer import build_tokenizer, load_tokenizer, save_tokenizer
from nemo_cosmos.training.tokenizer.config import TokenizerTrainConfig

TOOLS = Path(__file__).parents[1] / "tools"
PRESETS = {
    "Cosmos-Predict1-Tiny-Video2World": "predict1-tiny-video2world",
    "Cosmos-Predict1-Tiny-Text2World": "predict1-tiny-text2world",
    "Cosmos-Predict2-Tiny-Video2World": "predict2-tiny-video2world",
    "Cosmos-Predict2-Tiny-Text2Image": "predict2-tiny-text2image",
}


@pytest.fixture(autouse=True)
def _tools(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(TOOLS))


def script(monkeypatch: pytest.MonkeyPatch, *words: object) -> int:
    """Exit status of the script."""
    monkeypatch.setattr(sys, "argv", ["train_tiny_model.py", *map(str, words)])
    try:
        runpy.run_path(str(TOOLS / "train_tiny_model.py"), run_name="__main__")
    except SystemExit as end:
        return int(end.code or 0)
    return 0


def plan(out: Path, size: str = "full") -> Any:
    from tiny_model.plan import Plan
    from tiny_model.sizes import SIZES

    return Plan(out, SIZES[size], seed=3, workers=4)


@pytest.mark.parametrize("size", ["full", "smoke"])
def test_every_command_is_one_that_the_trainers_take(size: str, tmp_path: Path) -> None:
    made = plan(tmp_path, size)
    _, tokenizer, latents, networks, _ = made.steps()
    config = load_config(TokenizerTrainConfig, tokenizer.request[2:], root="tokenizer_train")
    assert config.trainer.max_steps == config.optimizer.decay_steps == made.size.tokenizer_steps
    assert config.trainer.deterministic and config.checkpoint.statistics_clips > 0 and config.seed == 3
    assert len(networks.request) == 4
    for words in networks.request.values():
        network = load_config(TrainConfig, words[1:])
        assert network.trainer.max_steps == network.optimizer.cycle_steps == made.size.network_steps
        assert network.trainer.deterministic and network.seed == 3 and network.ema.enabled
        assert network.data.tokenizer == config.model.overrides["name"]
        assert ("image" in network.model.preset) is network.data.path.endswith("image_shards")
        assert network.data.path in {words[2] for words in latents.request.values()}


def test_workers_never_change_what_is_asked_for(tmp_path: Path) -> None:
    from tiny_model.plan import Plan
    from tiny_model.sizes import SIZES

    few, many = (Plan(tmp_path, SIZES["full"], 0, workers=workers).steps() for workers in (1, 16))
    assert [step.request for step in few] == [step.request for step in many]


def test_networks_that_are_trained_stay_when_the_others_were_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tiny_model import plan as module

    ran: list[list[str]] = []

    def run(commands: Mapping[str, Sequence[str]], logs: Path) -> None:
        ran.append(list(commands))
        for name in list(commands)[:2]:
            file = weights_file(tmp_path / name / "checkpoints", made.size.network_steps, "ema")
            file.parent.mkdir(parents=True)
            file.touch()
        if len(commands) > 2:
            raise SystemExit(143)

    monkeypatch.setattr(module, "run_together", run)
    made = plan(tmp_path)
    step = made.train_networks()
    with pytest.raises(SystemExit):
        step.run()
    step.run()
    assert len(ran[0]) == 4 and ran[1] == ran[0][2:]


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Untrained parts of the right shapes."""
    folder = tmp_path_factory.mktemp("parts")
    config = load_config(TokenizerTrainConfig, ["experiment=tiny_tokenizer"], root="tokenizer_train")
    module = build_tokenizer(config.model.preset, **config.model.overrides)
    statistics = torch.zeros(16, 5), torch.ones(16, 5)
    save_tokenizer(folder / "trained", module, name=module.config.name, mean=statistics[0], std=statistics[1])
    save_tiny_text_encoder(folder / "parts" / "google-t5" / "t5-11b")
    for name, preset in PRESETS.items():
        network = DiTConfig.preset(preset)
        (folder / name).mkdir()
        write_json(folder / name / "model_config.json", network.to_dict())
        save_tensors(folder / name / "iter_000000001_ema_model.pt", build_dit(network, seed=1).to_original())
    for shape in ("landscape", "portrait"):
        clips = [{"name": f"train_{n:05d}", "split": "train", "sha256": "0" * 64, "kind": "arm"} for n in range(2)]
        photographs = [{"name": "rock", "file": "rock.png", "package": "p", "licence": "CC0", "sha256": "1" * 64}]
        made_by = {"made_by": f"sample-data {shape}", "photographs": photographs, "clips": clips}
        write_json(folder / f"{shape}.json", made_by)
    return folder


def pack(parts: Path, target: Path) -> None:
    from tiny_model import folder

    folder.round_tokenizer(parts / "trained", parts / "parts" / "Cosmos-Tokenize1-CV4x8x8-Tiny")
    weights = {name: parts / name / "iter_000000001_ema_model.pt" for name in PRESETS}
    lists = {shape: parts / f"{shape}.json" for shape in ("landscape", "portrait")}
    folder.assemble(target, parts / "parts", weights, lists, "python tools/train_tiny_model.py OUT")


def digests(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_the_folder_is_read_as_released_ones_are_and_packed_alike_twice(parts: Path, tmp_path: Path) -> None:
    pack(parts, tmp_path / "a")
    pack(parts, tmp_path / "b")
    assert digests(tmp_path / "a") == digests(tmp_path / "b")
    made = tmp_path / "a"
    assert sum(path.stat().st_size for path in made.rglob("*") if path.is_file()) < 24_000_000
    for name, preset in PRESETS.items():
        config = DiTConfig.preset(preset)
        found = open_weights(made / name / "model.pt").state
        with torch.device("meta"):
            net = build_dit(config)
        rounded = sum(tensor.numel() for tensor in found.values() if tensor.dtype == torch.bfloat16)
        assert rounded == sum(parameter.numel() for parameter in net.parameters())
        report = check(config, found)
        assert not report.missing and not report.unexpected
    tokenizer = load_tokenizer(made / "Cosmos-Tokenize1-CV4x8x8-Tiny")
    assert tokenizer.config.temporal_compression == 4 and tokenizer.config.chunk_frames == 17
    listed = json.loads((made / "training_list.json").read_text())
    assert [clip["name"] for clip in listed["clips"]][::3] == ["landscape/train_00000", "portrait/train_00001"]
    assert [one["licence"] for one in listed["photographs"]] == ["CC0"]
    card = (made / "README.md").read_text()
    assert "rock.png | p | CC0" in card and "| 3.95 M |" in card and "4 clips" in card


def test_a_folder_too_large_or_a_tokenizer_without_statistics_is_refused(
    parts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tiny_model import folder

    monkeypatch.setattr(folder, "LARGEST_FOLDER", 1_000_000)
    with pytest.raises(InputError, match="expected at most 1,000,000"):
        pack(parts, tmp_path / "made")
    assert not list(tmp_path.iterdir())
    module = build_tokenizer("CV4x8x8-360p", channels=8, channels_mult=[1, 2, 2], num_res_blocks=1)
    save_tokenizer(tmp_path / "plain", module, name="plain")
    with pytest.raises(InputError, match="no latent statistics"):
        folder.round_tokenizer(tmp_path / "plain", tmp_path / "rounded")
    monkeypatch.setattr(folder, "MOST_TOKENIZER_PARAMETERS", 100)
    with pytest.raises(InputError, match="expected at most 100"):
        folder.round_tokenizer(parts / "trained", tmp_path / "rounded")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--clips", "3"], "--clips"),
        (["--workers", "0"], "--workers"),
        (["--seed", "-1"], "--seed"),
        (["--networks", "optimizer.lr"], "expected KEY=VALUE"),
        (["--tokenizer", "trainer.max_steps=3"], "--tokenizer-steps"),
        (["--size", "huge"], "invalid choice"),
        (["--install"], "nothing finished to install"),
    ],
)
def test_mistakes_end_with_one_line(
    words: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    assert script(monkeypatch, tmp_path / "out", *words) == 2
    error = capfd.readouterr().err
    assert said in error and error.count("\n") == 1 and error.startswith("error: ")
    assert not (tmp_path / "out").exists()


def test_a_failing_command_ends_the_others_with_its_status(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    from tiny_model.together import run_together

    run_together({"one": ["--version"], "two": ["--version"]}, tmp_path)
    assert (tmp_path / "one.log").read_text() == (tmp_path / "two.log").read_text() != ""
    with pytest.raises(SystemExit) as end:
        run_together({"wrong": ["train", "experiment=nothing_like_it"], "right": ["experiments"]}, tmp_path)
    assert end.value.code == 2
    assert "nothing_like_it" in capfd.readouterr().err


def test_a_signal_reaches_every_command(tmp_path: Path) -> None:
    from tiny_model.together import run_together

    videos = tmp_path / "clips"
    words = {name: ["sample-data", str(videos / name), "--clips=100000", "--size=256x256"] for name in ("a", "b")}

    def send() -> None:
        if not all(list(videos.glob(f"{name}/train/videos/*.mp4")) for name in words):
            timer = threading.Timer(0.1, send)
            timer.daemon = True
            timer.start()
            return
        os.kill(os.getpid(), signal.SIGTERM)

    send()
    with pytest.raises(SystemExit) as end:
        run_together(words, tmp_path / "logs")
    assert end.value.code == 128 + signal.SIGTERM
    assert all("SIGTERM" in (tmp_path / "logs" / f"{name}.log").read_text() for name in words)
