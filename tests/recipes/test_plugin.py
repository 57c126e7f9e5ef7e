"""`nemorun cosmos train --factory NAME`: what NeMo-Run's own command line finds through the entry point."""

from __future__ import annotations

import sys
from typing import Any

import fiddle as fdl
import pytest

from nemo_cosmos.compose import dump_config, load_config
from nemo_cosmos.config import TrainConfig
from nemo_cosmos.recipes.task import checked
from tests.test_dependencies import PROJECT


@pytest.fixture
def nemorun(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Calls the command line with this project's entry points alone; returns the tasks that it would run."""
    import importlib_metadata
    from nemo_run.cli import api

    declared = PROJECT["entry-points"]["nemo_run.cli"]
    points = importlib_metadata.EntryPoints(
        importlib_metadata.EntryPoint(name, value, "nemo_run.cli") for name, value in declared.items()
    )
    monkeypatch.setattr(api.metadata, "entry_points", lambda: points)
    tasks: list[Any] = []
    monkeypatch.setattr("nemo_run.run", lambda **arguments: tasks.append(arguments["fn_or_script"]))

    def call(*words: str) -> list[Any]:
        monkeypatch.setattr(sys, "argv", ["nemorun", *words])
        api.create_cli()(list(words), standalone_mode=False)
        return tasks

    return call


def test_a_recipe_with_changes(nemorun: Any) -> None:
    changes = {
        "optimizer.lr": "1e-5", "trainer.num_nodes": "1", "resume": "previous", "data.path": "/clips",
        "lora.targets": '["to_q","to_k"]', "data.size": "[8,16]", "ema.enabled": "false",
    }  # fmt: skip
    words = [f"config.{key}={value}" for key, value in changes.items()]
    (task,) = nemorun(
        "cosmos", "train", "--factory", "video2world_7b_example_hdvila(gpus_per_node=8)", "--yes", *words
    )
    expected = [f"{key}={value}" for key, value in changes.items()]
    config = load_config(TrainConfig, ["experiment=video2world_7b_example_hdvila", "trainer.devices=8", *expected])
    assert dump_config(checked(fdl.build(task.config))) == dump_config(config)


def test_tokenizers_too(nemorun: Any) -> None:
    (task,) = nemorun("cosmos", "train", "--factory", "demo_tokenizer", "--yes", "config.data.crop=[16,16]")
    assert checked(fdl.build(task.config)).data.crop == [16, 16]
