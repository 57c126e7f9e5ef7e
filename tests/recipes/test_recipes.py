"""Recipes of NeMo-Run are the experiments: the same settings, changed in Python or on the command line."""

from __future__ import annotations

import dataclasses
import json
import typing
from collections.abc import Iterator
from typing import Any

import fiddle as fdl
import pytest

from nemo_cosmos import recipes
from nemo_cosmos.compose import dump_config, experiment_names, load_config
from nemo_cosmos.errors import InputError
from nemo_cosmos.recipes.roots import ROOTS, root_of
from nemo_cosmos.recipes.task import checked
from nemo_cosmos.typed import LARGEST

EXPERIMENTS = [(name, root) for root in ROOTS for name in experiment_names(root)]


def resolved(recipe: Any) -> str:
    """The configuration that a recipe runs with."""
    return dump_config(checked(fdl.build(recipe.config)))


def other_values(config: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every setting with a value that it does not have and may have."""
    hints = typing.get_type_hints(type(config))
    for item in dataclasses.fields(config):
        value, name = getattr(config, item.name), prefix + item.name
        if dataclasses.is_dataclass(value):
            yield from other_values(value, f"{name}.")
        elif name == "model.overrides":
            yield name, {**value, "num_res_blocks" if "Tokenizer" in type(config).__name__ else "num_layers": 3}
        elif name not in ("experiment", "output_dir", "model.preset"):
            yield name, other_value(value, hints[item.name], item.metadata)


def other_value(value: Any, hint: Any, metadata: Any) -> Any:
    if choices := metadata.get("choices"):
        return next(choice for choice in reversed(choices) if choice != value)
    if isinstance(value, bool):
        return not value
    if isinstance(value, list):
        return [other_value(inner, type(inner), metadata) for inner in value] * (1 if "form" in metadata else 2)
    if "list" in str(hint) and value is None:
        return [16, 24]
    least, most = metadata.get("minimum", -LARGEST), metadata.get("maximum", LARGEST)
    if isinstance(value, int | float):
        return type(value)(min(least + 1, most) if value != min(least + 1, most) else least)
    if "bool" in str(hint) and value is None:
        return True
    if "int" in str(hint) and value is None:
        return int(least) + 1
    return 0.5 if "float" in str(hint) and value is None else "another one"


@pytest.mark.parametrize(("name", "root"), EXPERIMENTS)
def test_changes_in_python_and_on_the_command_line_agree(name: str, root: str) -> None:
    recipe = getattr(recipes, name)()
    words = [f"experiment={name}"]
    # A fifth of the settings each, so that every setting is changed in some experiment.
    for key, value in [*other_values(checked(fdl.build(recipe.config)))][EXPERIMENTS.index((name, root)) % 5 :: 5]:
        section, _, last = f"config.{key}".rpartition(".")
        holder: Any = recipe
        for part in section.split("."):
            holder = getattr(holder, part)
        setattr(holder, last, value)
        text = value if isinstance(value, str) else json.dumps(value).replace('"', "")
        words.append(f"{key}={text}")
    assert len(words) > 12
    assert resolved(recipe) == dump_config(load_config(ROOTS[root], words, root=root))


def test_every_experiment_is_a_name_of_the_module() -> None:
    names = [name for name, _ in EXPERIMENTS]
    assert dir(recipes) == sorted(names) and len(set(names)) == len(names)
    assert all(name.isidentifier() for name in names)
    assert recipes.demo_video2world.__name__ == "demo_video2world"
    assert "Video2World network of nemo-cosmos-tiny" in (recipes.demo_video2world.__doc__ or "")
    with pytest.raises(AttributeError, match="no_such_experiment"):
        _ = recipes.no_such_experiment
    with pytest.raises(InputError, match="did you mean demo_video2world"):
        root_of("demo_video2wrld")


def test_arguments_of_a_recipe() -> None:
    recipe = recipes.video2world_7b_example_hdvila(
        num_nodes=2, gpus_per_node=8, parallel="tensor4", optimizer={"lr": 1e-5}, **{"data.global_batch": 4}
    )
    config = recipe.config
    assert (config.trainer.num_nodes, config.trainer.devices) == (2, 8)
    assert (config.parallel.tensor, config.optimizer.lr, config.data.global_batch) == (4, 1e-5, 4)
    config.name = "mine"
    assert "diffusion_video2world/mine\n" in resolved(recipe)


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("video2world_7b_example_hdvila", {"num_nodes": 1, "gpus_per_node": 3}, "3 processes are not divisible by"),
        ("demo_video2world", {"num_nodes": 3, "gpus_per_node": 2}, "data.global_batch=8 is not divisible"),
        ("demo_tokenizer", {"num_nodes": 1, "gpus_per_node": 3}, "data.global_batch=4 is not a multiple"),
        ("demo_video2world", {"optimizer.lrr": 1.0}, "did you mean optimizer.lr"),
        ("demo_video2world", {"optimizer": {"lr": "fast"}}, "optimizer.lr"),
        ("demo_video2world", {"parallel": "tensor3"}, "no such choice"),
        ("demo_video2world", {"gpus_per_node": 0}, "trainer.devices=0: expected at least 1"),
    ],
)
def test_what_no_run_can_have_is_refused_at_once(name: str, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        getattr(recipes, name)(**arguments)


def test_what_is_changed_later_is_checked_when_it_runs() -> None:
    recipe = recipes.demo_video2world()
    with pytest.raises(InputError, match="OptimizerConfig has no setting 'learning_rate'"):
        recipe.config.optimizer.learning_rate = 1.0
    recipe.config.optimizer.lr = "fast"
    with pytest.raises(InputError, match=r"optimizer\.lr"):
        fdl.build(recipe)()
    recipe.config.optimizer = {"lr": 1.0, "speed": 2}
    with pytest.raises(InputError, match=r"optimizer\.speed"):
        fdl.build(recipe)()
    recipe.config = 5
    with pytest.raises(InputError, match="config='5': expected a TrainConfig"):
        fdl.build(recipe)()


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("demo_video2world", "nemo_cosmos.training.run.train"),
        ("demo_tokenizer", "nemo_cosmos.training.tokenizer.trainer.train"),
    ],
)
def test_it_trains_with_exactly_its_configuration(name: str, place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    trained: list[Any] = []
    monkeypatch.setattr(place, trained.append)
    recipe = getattr(recipes, name)()
    recipe.config.optimizer.lr = 0.5
    recipe.config.seed = 7
    fdl.build(recipe)()
    assert dump_config(trained[0]) == resolved(recipe)
    assert (trained[0].optimizer.lr, trained[0].seed) == (0.5, 7)


def test_it_survives_the_way_to_another_machine() -> None:
    """NeMo-Run writes recipes down, and refuses those that come back as something else."""
    from nemo_run.core.serialization.zlib_json import ZlibJSONSerializer

    recipe = recipes.Cosmos_Tokenize1_CV8x8x8_720p_HDVILA()
    recipe.config.loss.perceptual.gram.values[1] = 0.5
    back = ZlibJSONSerializer().deserialize(ZlibJSONSerializer().serialize(recipe))
    assert back == recipe and resolved(back) == resolved(recipe)


def test_without_nemo_run_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nemo_cosmos.recipes.extra.find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"recipes need NeMo-Run.*nemo_cosmos\[launch\]"):
        recipes.demo_video2world()
