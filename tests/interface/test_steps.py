"""`nc.load_config`, `nc.train` and `nc.prepare` as a notebook uses them, in one process."""

from __future__ import annotations

import inspect
import os
import random
import signal
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import nemo_cosmos as nc
from nemo_cosmos.commands.prepare import prepare
from nemo_cosmos.config import load_config
from nemo_cosmos.errors import InputError
from tests.interface.verbs import command
from tests.parallel.processes import run_processes
from tests.training.shards import write_shards


def test_the_import_is_light_and_names_what_there_is() -> None:
    code = (
        "import sys, nemo_cosmos as nc; nc.load_config; nc.train; assert callable(nc.prepare); print(dir(nc));"
        "heavy = {'torch', 'numpy', 'hydra', 'megatron', 'nemo', 'transformers'} & set(sys.modules);"
        "assert not heavy, heavy; import nemo_cosmos.prepare.encode as encode; assert callable(nc.prepare), encode"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert said.strip() == str(sorted([*nc.__all__, "__version__"]))
    with pytest.raises(AttributeError, match="no attribute 'predict'"):
        nc.predict  # noqa: B018


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("project", "a b,c={d}[e]'\"\\f#:~*é"),
        ("project", "null"),
        ("project", "true"),
        ("project", "1e3"),
        ("project", ""),
        ("project", "'quoted'"),
        ("project", "a,b"),
        ("project", "[a]"),
        ("project", "~key"),
        ("project", "choice(1,2)"),
        ("project", "line\nline"),
        ("data.path", "/with spaces/and=signs"),
        ("resume", False),
        ("model.init_from", None),
        ("optimizer.lr", 3.125e-5),
        ("lora.targets", ["to_q", "ff.net.0.proj"]),
        ("model.overrides.num_layers", 3),
        ("trainer.max_steps", 1000),
    ],
)
def test_python_values_arrive_as_they_are(key: str, value: Any) -> None:
    found: Any = nc.load_config("demo_video2world", {key: value})
    for part in key.split("."):
        found = found[part] if isinstance(found, dict) else getattr(found, part)
    assert found == value and type(found) is type(value)


def test_other_kinds_of_values_and_choices_of_a_group() -> None:
    overrides = {
        "parallel.tensor": np.int64(4),
        "data.path": Path("some where"),
        "lora.targets": ("to_q",),
        "parallel": "tensor2",
        "trainer": {"max_steps": 5},
        "name": "n${seed}",
    }
    config = nc.load_config("demo_video2world", overrides)
    assert (config.parallel.tensor, config.data.path, config.lora.targets) == (4, "some where", ["to_q"])
    assert config.trainer.max_steps == 5 and config.name == "n0"
    assert nc.load_config("demo_video2world", {"parallel": "context8"}).parallel.context == 8
    as_command = load_config(nc.TrainConfig, ["experiment=demo_video2world", "trainer.max_steps=5"])
    assert nc.load_config("demo_video2world", {"trainer.max_steps": 5}) == as_command


@pytest.mark.parametrize(
    ("experiment", "overrides", "message"),
    [
        ("video2world_7b_exampel_hdvila", None, "unknown experiment .*did you mean video2world_7b_example_hdvila"),
        (7, None, "experiment='7'"),
        ("demo_video2world", ["trainer.max_steps=3"], "expected a dict"),
        ("demo_video2world", {"trainer.max_step": 3}, "trainer.max_step.*did you mean trainer.max_steps"),
        ("demo_video2world", {"trainer": {"max_step": 3}}, "trainer.max_step"),
        ("demo_video2world", {"trainer.max_steps": "many"}, "trainer.max_steps"),
        ("demo_video2world", {"trainer.max_steps": 1.5}, "trainer.max_steps"),
        ("demo_video2world", {"trainer.max_steps": True}, "trainer.max_steps"),
        ("demo_video2world", {"trainer.max_steps": None}, "trainer.max_steps"),
        ("demo_video2world", {"trainer": 5}, "trainer"),
        ("demo_video2world", {"optimizer.lr": float("nan")}, "optimizer.lr"),
        ("demo_video2world", {"lora.targets": "to_q"}, "lora.targets"),
        ("demo_video2world", {"parallel": "tensor3"}, "parallel=tensor3: no such choice"),
        ("demo_video2world", {"name": object()}, "name="),
        ("demo_video2world", {"model.overrides": {3: 4}}, "model.overrides"),
        ("demo_video2world", {"experiment": "demo_video2world"}, "first argument"),
        ("demo_video2world", {3: 4}, "override 3"),
    ],
)
def test_bad_experiments_and_overrides_name_the_key(experiment: Any, overrides: Any, message: str) -> None:
    for function in (nc.load_config, nc.train):
        with pytest.raises(nc.InputError, match=message):
            function(experiment, overrides)


def test_a_configuration_filled_in_python_is_checked() -> None:
    config = nc.load_config("demo_video2world")
    with pytest.raises(InputError, match="overrides go with the name"):
        nc.train(config, {"trainer.max_steps": 3})
    config.trainer.max_steps = "many"  # type: ignore[assignment]
    with pytest.raises(InputError, match=r"trainer.max_steps"):
        nc.train(config)
    with pytest.raises(InputError, match="experiment"):
        nc.train(nc.TrainConfig())


def train_twice(folder: Path) -> None:
    shards = write_shards(folder / "sha rds=1, {a}", shape=(5, 10, 6))
    network = {
        "num_layers": 2, "hidden_size": 32, "num_attention_heads": 2, "text_width": 16, "adaln_lora_dim": 8,
        "max_frames": 16, "max_height": 32, "max_width": 32,
    }  # fmt: skip
    overrides: dict[str, Any] = {
        "model.preset": "tiny-video2world", "model.init_from": None, "model.overrides": network, "data.path": shards,
        "output_dir": folder / "run, =1", "data.micro_batch": 1, "data.global_batch": 2, "data.num_workers": 0,
        "data.text_length": 8, "data.tokenizer": None, "trainer.max_steps": 1,
    }  # fmt: skip
    before = process_state()
    run = nc.train("demo_video2world", overrides)
    assert run == folder / "run, =1"
    assert process_state() == before
    config = nc.load_config("demo_video2world", overrides)
    config.trainer.max_steps = 2
    assert nc.train(config) == run
    assert len((run / "metrics.jsonl").read_text().splitlines()) == 2
    assert (run / "checkpoints" / "iter_000000002").is_dir()


def process_state() -> Any:
    """What a notebook would notice of a run that has ended."""
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)]
    generators = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
    joined = torch.distributed.is_initialized()
    return dict(os.environ), list(warnings.filters), handlers, generators, joined, torch.is_grad_enabled()


def test_training_twice_in_one_process_leaves_it_as_it_was(tmp_path: Path) -> None:
    run_processes(1, train_alone, tmp_path, log=tmp_path / "logs")
    said = "".join(file.read_text() for file in (tmp_path / "logs").rglob("*") if file.is_file())
    assert "step 1/1" in said and "step 2/2" in said and "resumed from" in said


def train_alone(folder: Path) -> None:
    """As a notebook does it: without the variables of a launcher."""
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
        os.environ.pop(name, None)
    train_twice(folder)


def test_prepare_returns_what_there_is_and_goes_on(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    models = {"tokenizer": folder / "tokenizer", "text_encoder": str(folder / "text")}
    first = nc.prepare(folder / "clips", tmp_path / "s", **models, frames=9, size=(32, 48), workers=0)
    assert (first.path, first.samples, first.written, first.skipped) == (tmp_path / "s", 2, 2, [])
    assert "prepared 2 samples" in capsys.readouterr().out
    again = nc.prepare(folder / "clips", str(tmp_path / "s"), **models, frames=9, size=(32, 48), workers=0)
    assert (again.samples, again.written, again.already_done) == (2, 0, 2)
    flags = ("--tokenizer", folder / "tokenizer", "--text-encoder", folder / "text", "--frames", 9)
    command(prepare, folder / "clips", tmp_path / "c", *flags, "--size", "32x48", "--workers", 0)
    shards = [sorted((tmp_path / name).glob("*.tar")) for name in "sc"]
    assert [file.read_bytes() for file in shards[0]] == [file.read_bytes() for file in shards[1]]
    assert "text_encoder" in inspect.signature(nc.prepare).parameters


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"tokenizer": None}, "tokenizer=None"),
        ({"tokenizer": "nowhere"}, "nowhere"),
        ({"frames": 10}, "10 frames"),
        ({"frames": "9"}, "frames='9'"),
        ({"size": "32x48"}, "size='32x48'"),
        ({"size": (30, 48)}, "size 30x48"),
        ({"size": (32,)}, "size="),
        ({"fit": "squeeze"}, "fit='squeeze'"),
        ({"workers": -1}, "workers=-1"),
        ({"device": "tpu"}, "tpu"),
    ],
)
def test_mistakes_of_prepare_write_nothing(folder: Path, tmp_path: Path, changed: Any, message: str) -> None:
    given = {"tokenizer": folder / "tokenizer", "text_encoder": folder / "text", "frames": 9, "size": (32, 48)}
    with pytest.raises(InputError, match=message):
        nc.prepare(folder / "clips", tmp_path / "s", **{"workers": 0, **given, **changed})
    assert not (tmp_path / "s").exists()
