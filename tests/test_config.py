"""Configuration: every shipped file loads, and a user's mistake is answered with the key at fault."""

from __future__ import annotations

import dataclasses
import importlib.util
import operator
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from nemo_cosmos.config import (
    ObjectiveConfig,
    TrainConfig,
    conf_folder,
    dump_config,
    experiment_file,
    experiment_names,
    load_config,
    read_config,
)
from nemo_cosmos.diffusion.objectives import OBJECTIVES
from nemo_cosmos.errors import InputError
from nemo_cosmos.models.dit.config import DiTConfig
from nemo_cosmos.parallel.layout import NetworkShape, validate_layout
from nemo_cosmos.training.objective import settings_of_others
from nemo_cosmos.training.tokenizer.config import TokenizerTrainConfig

ROOT = Path(__file__).parents[1]
ISSUED = [
    f"{kind}2world_{size}_example_hdvila{suffix}"
    for kind in ("text", "video")
    for size in ("7b", "14b")
    for suffix in ("", "_lora")
]


def flat(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    result = {}
    for key, value in tree.items():
        if isinstance(value, dict) and value:
            result |= flat(value, f"{prefix}{key}.")
        else:
            result[prefix + key] = value
    return result


def test_the_known_experiments_are_shipped() -> None:
    assert set(ISSUED) | {"demo_video2world"} <= set(experiment_names())


@pytest.mark.parametrize("name", experiment_names())
def test_shipped_experiment_loads_and_survives_a_round_trip(name: str, tmp_path: Path) -> None:
    config = load_config(TrainConfig, [f"experiment={name}"])
    assert config.experiment == name
    assert DiTConfig.preset(config.model.preset, **config.model.overrides)
    (tmp_path / "config.yaml").write_text(dump_config(config), encoding="utf-8")
    assert read_config(TrainConfig, tmp_path / "config.yaml") == config


@pytest.mark.parametrize("name", experiment_names())
def test_layout_of_shipped_experiment_fits_its_processes(name: str) -> None:
    config = load_config(TrainConfig, [f"experiment={name}"])
    network = DiTConfig.preset(config.model.preset)
    # Of the last command in the file's own comment.
    processes = re.findall(r"^#   torchrun --nproc_per_node=(\d+)", experiment_file(name).read_text(), re.MULTILINE)
    validate_layout(
        config.parallel,
        NetworkShape(network.num_layers, network.num_attention_heads),
        world_size=int(processes[-1]) if processes else 1,
        micro_batch=config.data.micro_batch,
        global_batch=config.data.global_batch,
    )


@pytest.mark.parametrize("name", ISSUED)
def test_hdvila_experiments_have_the_released_values(name: str) -> None:
    config = load_config(TrainConfig, [f"experiment={name}"])
    network = DiTConfig.preset(config.model.preset)
    video = name.startswith("video")
    assert network.position_embedding == "learnable"
    assert network.condition_mask is video
    assert config.objective.sigma_multiplier == (4.0 if video else 1.0)
    assert config.objective.loss_add_logvar
    assert config.lora.enabled is name.endswith("_lora")
    if not config.lora.enabled:
        assert config.optimizer.lr == pytest.approx(2**-14.3, rel=1e-12)
    assert (config.optimizer.beta1, config.optimizer.beta2) == (0.9, 0.99)
    assert (config.optimizer.eps, config.optimizer.weight_decay) == (1e-10, 0.1)
    assert config.model.strict_init and config.model.init_from
    assert config.output_dir.endswith(f"posttraining/{config.group}/{name}")


def test_output_root_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OUTPUT_ROOT", "/data/runs")
    config = load_config(TrainConfig, ["experiment=video2world_7b_example_hdvila", "name=mine"])
    assert config.output_dir == "/data/runs/posttraining/diffusion_video2world/mine"


def test_train_yaml_shows_every_setting_with_its_default() -> None:
    shown = flat(yaml.safe_load((conf_folder() / "train.yaml").read_text(encoding="utf-8")))
    shown.pop("defaults")
    defaults = flat(dataclasses.asdict(TrainConfig()))
    assert set(shown) == {key for key in defaults if not key.startswith("objective.")} - {"experiment"}
    for key, value in shown.items():
        assert value == pytest.approx(defaults[key], rel=1e-12) if isinstance(value, float) else value == defaults[key]


@pytest.mark.parametrize("file", sorted(conf_folder().rglob("*.yaml")), ids=lambda file: file.stem)
def test_yaml_file_says_what_it_is(file: Path) -> None:
    lines = file.read_text(encoding="utf-8").splitlines()
    assert any(line.startswith("# ") and "@package" not in line for line in lines)


def test_objective_files_show_every_setting_that_the_objective_reads() -> None:
    defaults = flat(dataclasses.asdict(ObjectiveConfig()))
    assert {file.stem for file in (conf_folder() / "objective").glob("*.yaml")} == set(OBJECTIVES)
    for name in OBJECTIVES:
        text = (conf_folder() / "objective" / f"{name}.yaml").read_text(encoding="utf-8")
        shown = flat(yaml.safe_load(text))
        assert set(shown) == set(defaults) - set(settings_of_others(name))
        assert shown["name"] == name
        differing = {key for key, value in shown.items() if value != defaults[key]}
        assert differing == (set() if name == "edm" else {"name", "condition.min_frames"})


@pytest.mark.parametrize(
    "words, key, value",
    [
        (["diffusion.condition.max_frames=1"], "objective.condition.max_frames", 1),
        (["diffusion.sigma_data=0.4"], "objective.sigma_data", 0.4),
        (["model.train_architecture=lora"], "lora.enabled", True),
        (["model.config.train_architecture=lora", "model.config.lora_rank=16"], "lora.rank", 16),
        (["lora.enabled=true", "model.train_architecture=base"], "lora.enabled", False),
        (["++trainer.max_iter=7"], "trainer.max_steps", 7),
    ],
)
def test_words_of_other_commands_stand_for_ours(words: list[str], key: str, value: object) -> None:
    assert operator.attrgetter(key)(load_config(TrainConfig, ["experiment=demo_video2world", *words])) == value
    values = {name: yaml.safe_load(text) for name, text in (word.lstrip("+").split("=") for word in words)}
    config = load_config(TrainConfig, ["experiment=demo_video2world"], values=values)
    assert operator.attrgetter(key)(config) == value


def test_a_value_that_another_spelling_does_not_have_is_refused() -> None:
    with pytest.raises(InputError, match=r"train_architecture=full: expected lora or base"):
        load_config(TrainConfig, ["experiment=demo_video2world", "model.train_architecture=full"])


def test_run_files_of_earlier_versions_are_read(tmp_path: Path) -> None:
    now = load_config(TrainConfig, ["experiment=demo_video2world", "objective.sigma_data=0.4"])
    file = tmp_path / "config.yaml"
    file.write_text(dump_config(now).replace("objective:\n  name: edm\n", "diffusion:\n"))
    assert "diffusion:" in file.read_text() and read_config(TrainConfig, file) == now


@pytest.mark.parametrize("group", ["parallel", "lora", "objective"])
def test_every_choice_of_a_group_loads(group: str) -> None:
    for file in (conf_folder() / group).glob("*.yaml"):
        load_config(TrainConfig, ["experiment=demo_video2world", f"{group}={file.stem}"])


def test_the_command_line_beats_the_experiment() -> None:
    config = load_config(
        TrainConfig,
        ["experiment=video2world_7b_example_hdvila", "parallel=tensor2", "parallel.context=3", "optimizer.lr=1e-3"],
    )
    assert (config.parallel.tensor, config.parallel.context, config.optimizer.lr) == (2, 3, 1e-3)


def test_network_fields_need_no_plus() -> None:
    config = load_config(TrainConfig, ["experiment=demo_video2world", "model.overrides.num_layers=3"])
    assert config.model.overrides["num_layers"] == 3


def test_paths_may_hold_any_character() -> None:
    config = load_config(TrainConfig, ["experiment=demo_video2world", "data.path=/my clips (new)/a=b's"])
    assert config.data.path == "/my clips (new)/a=b's"


@pytest.mark.parametrize(
    "name", ["take [1]", "[1] x", "a,b", "it's", '"q"', "'q' x", " led", "x: y", "{a}", "-x", "a=b"]
)
def test_paths_that_exist_are_literal(name: str, tmp_path: Path) -> None:
    (tmp_path / name).mkdir()
    path = str(tmp_path / name)
    assert load_config(TrainConfig, ["experiment=demo_video2world", f"data.path={path}"]).data.path == path


def test_relative_paths_that_exist_are_literal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("[1] x", "a,b", "'q'", "{a: b}"):
        (tmp_path / name).mkdir()
        assert load_config(TrainConfig, ["experiment=demo_video2world", f"data.path={name}"]).data.path == name


@pytest.mark.parametrize(
    ("override", "answer"),
    [
        ("trainer.max_stepz=3", "did you mean trainer.max_steps?"),
        ("max_steps=3", "did you mean trainer.max_steps?"),
        ("trainer.max_steps=many", "trainer.max_steps"),
        ("trainer.max_steps=0", "trainer.max_steps=0: expected at least 1"),
        ("trainer.precision=fp8", "trainer.precision=fp8: expected one of fp32, bf16"),
        ("parallel=tensr2", "did you mean tensor2?"),
        ("experiment=video2world_7b_hdvila", "did you mean video2world_7b_example_hdvila?"),
        ("experiment=zzz", "demo_video2world"),
        ("seed=1,2", "several values"),
        ("trainer", "key=value"),
        ("~seed", "cannot be removed"),
        ("model={preset: tiny-video2world, presset: x}", "did you mean model.preset?"),
    ],
)
def test_mistake_is_answered_with_the_key_at_fault(override: str, answer: str) -> None:
    with pytest.raises(InputError) as caught:
        load_config(TrainConfig, ["experiment=demo_video2world", override])
    assert answer in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_experiment_lists_the_shipped_ones() -> None:
    with pytest.raises(InputError, match=r"experiment=NAME.*video2world_7b_example_hdvila"):
        load_config(TrainConfig, [])


def test_read_config_names_file_and_key(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text("trainer:\n  max_stepz: 3\n", encoding="utf-8")
    with pytest.raises(InputError, match=r"config\.yaml: .*did you mean trainer\.max_steps"):
        read_config(TrainConfig, file)
    with pytest.raises(InputError, match="no such configuration file"):
        read_config(TrainConfig, tmp_path / "none.yaml")


@dataclass
class _Inner:
    width: int = 4


@dataclass
class _OtherSchema:
    inner: _Inner = field(default_factory=_Inner)


def test_another_schema_brings_its_own_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "other.yaml").write_text("defaults: [schema, _self_]\ninner: {width: 5}\n", encoding="utf-8")
    monkeypatch.setattr("nemo_cosmos.compose.conf_folder", lambda: tmp_path)
    assert load_config(_OtherSchema, [], root="other").inner.width == 5
    assert load_config(_OtherSchema, ["inner.width=6"], root="other").inner.width == 6
    with pytest.raises(InputError, match=r"did you mean inner\.width"):
        load_config(_OtherSchema, ["inner.widht=6"], root="other")


@pytest.mark.parametrize(("word", "value"), [("true", True), ("false", False), ("previous", "previous")])
@pytest.mark.parametrize(
    ("schema", "root", "experiment"),
    [(TrainConfig, "train", "demo_video2world"), (TokenizerTrainConfig, "tokenizer_train", "demo_tokenizer")],
)
def test_what_a_run_goes_on_from(
    word: str, value: bool | str, schema: type, root: str, experiment: str, tmp_path: Path
) -> None:
    config = load_config(schema, [f"experiment={experiment}", f"resume={word}"], root=root)
    assert config.resume is value or config.resume == value
    (tmp_path / "config.yaml").write_text(dump_config(config))
    assert read_config(schema, tmp_path / "config.yaml").resume == value
    with pytest.raises(InputError, match="resume=latest: expected one of true, false, previous"):
        load_config(schema, [f"experiment={experiment}", "resume=latest"], root=root)


def test_the_conf_folder_is_a_package() -> None:
    assert importlib.util.find_spec("nemo_cosmos.conf") is not None
