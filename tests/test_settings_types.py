"""Settings are commented with type and unit where they are shown, and held to their types when they are read."""

from __future__ import annotations

import re
import typing
from pathlib import Path

import pytest

from nemo_cosmos.compose import checked_config
from nemo_cosmos.config import ObjectiveConfig, TrainConfig, conf_folder, dump_config, load_config, read_config
from nemo_cosmos.errors import InputError
from nemo_cosmos.schema import types_of
from nemo_cosmos.training.tokenizer.config import TokenizerTrainConfig
from nemo_cosmos.typed import parse_yaml

NULL_TYPES = {int: "integer", float: "number", str: "text", bool: "boolean", list[int]: "two integers"}


def commented(file: Path) -> dict[str, tuple[str, str]]:
    """(value, comment) by dotted key of the lines of a YAML file; inner ones of a {section} have its comment."""
    found: dict[str, tuple[str, str]] = {}
    path: list[str] = []
    for line in file.read_text(encoding="utf-8").splitlines():
        match = re.match(r"( *)(\w+):(?: +(.*?))??(?: +# ?(.*))?$", line)
        if match is None or line.startswith("defaults:"):
            continue
        path = [*path[: len(match[1]) // 2], match[2]]
        key, value, comment = ".".join(path), match[3] or "", match[4] or ""
        if value.startswith("{") and value != "{}":
            found |= {f"{key}.{name}": (str(inner), comment) for name, inner in parse_yaml(value, key).items()}
        elif value:
            found[key] = (value, comment)
    return found


def leaves(schema: type) -> dict[str, typing.Any]:
    kinds = types_of(schema)
    return {key: kind for key, kind in kinds.items() if not any(other.startswith(f"{key}.") for other in kinds)}


ROOTS = [
    (TrainConfig, "train.yaml", ("experiment", "objective.")),
    (TokenizerTrainConfig, "tokenizer_train.yaml", ("experiment",)),
]


@pytest.mark.parametrize(("schema", "file", "elsewhere"), ROOTS, ids=lambda value: str(value)[:20])
def test_every_setting_is_commented_with_its_type(schema: type, file: str, elsewhere: tuple[str, ...]) -> None:
    shown = commented(conf_folder() / file)
    expected = {key: kind for key, kind in leaves(schema).items() if not key.startswith(elsewhere)}
    assert set(shown) == set(expected)
    for key, kind in expected.items():
        value, comment = shown[key]
        assert comment, f"{file}: {key} has no comment"
        parsed = parse_yaml(value, key)
        if parsed is None:
            assert comment.startswith(f"{NULL_TYPES[kind]}; "), f"{file}: {key}: the comment begins with its type"
        elif kind in (int, float, bool):
            assert type(parsed) is kind, f"{file}: {key}={value} is shown as another type than {kind.__name__}"


@pytest.mark.parametrize("file", sorted((conf_folder() / "objective").glob("*.yaml")), ids=lambda file: file.stem)
def test_every_setting_of_an_objective_is_commented(file: Path) -> None:
    shown = commented(file)
    assert set(shown) <= set(leaves(ObjectiveConfig)) and all(comment for _, comment in shown.values())


WRONG = [
    ("lora.targets=[1,2]", r"lora\.targets\[0\]=1: expected text"),
    ("lora.targets=[to_q,true]", r"lora\.targets\[1\]=True: expected text"),
    ("lora.targets=[[to_q]]", r"lora\.targets\[0\]=\['to_q'\]: expected text"),
    ("lora={enabled: true, targets: [1.5]}", r"lora\.targets\[0\]=1\.5: expected text"),
    ("objective.high_sigma_range=[a,b]", r"objective\.high_sigma_range\[0\]=a: expected a number"),
    ("objective.high_sigma_range=[true,2]", r"high_sigma_range\[0\]=True: expected a number"),
    ("objective.high_sigma_range=[[1,2]]", r"high_sigma_range\[0\]=\[1, 2\]: expected a number"),
    ("data.size=[64.5,64]", r"data\.size\[0\]=64\.5: expected a whole number"),
    ("data.size=['64','64']", r"data\.size\[0\]=64: expected a whole number"),
    ("data.size=[64,64,64]", r"data\.size=\[64, 64, 64\]: expected \[height,width\]"),
    ("model.overrides={num_layerz: 3}", r"model\.overrides: unknown field 'num_layerz'.*Did you mean 'num_layers'"),
    ("model.overrides.num_layerz=3", "Did you mean 'num_layers'"),
    ("model.overrides.num_layers=abc", "num_layers='abc': expected a whole number"),
    ("model.overrides={num_layers: {a: 1}}", "expected a whole number"),
    ("model.overrides={rope_ratio: [1,2,x]}", "rope_ratio"),
    ("model.preset=tiny-video2wurld", r"model\.preset: unknown model preset.*tiny-video2world"),
]


@pytest.mark.parametrize(("override", "message"), WRONG)
def test_a_value_of_another_type_is_refused_wherever_it_is(override: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        load_config(TrainConfig, ["experiment=demo_video2world", override])


def test_lists_given_in_python_and_read_from_files_are_held_to_their_types(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"lora\.targets\[0\]=1: expected text"):
        load_config(TrainConfig, ["experiment=demo_video2world"], values={"lora.targets": [1]})
    config = load_config(TrainConfig, ["experiment=demo_video2world"])
    text = dump_config(config).replace("- to_q\n", "- 7\n")
    (tmp_path / "config.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match=r"config\.yaml: lora\.targets\[0\]=7: expected text"):
        read_config(TrainConfig, tmp_path / "config.yaml")
    config.lora.targets = [3]  # type: ignore[list-item]
    with pytest.raises(InputError, match=r"lora\.targets\[0\]=3: expected text"):
        checked_config(config)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("data.crop=[64]", r"data\.crop=\[64\]: expected \[height,width\]"),
        ("loss.color.values=[a]", r"loss\.color\.values\[0\]=a: expected a number"),
        ("loss.color={values: [true]}", r"loss\.color\.values\[0\]=True: expected a number"),
        ("model.overrides={channels_mult: [a]}", "channels_mult"),
        ("model.overrides={channelz: 4}", "did you mean 'channels'"),
    ],
)
def test_settings_of_tokenizers_too(override: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        load_config(TokenizerTrainConfig, ["experiment=demo_tokenizer", override], root="tokenizer_train")


def test_references_to_other_settings_may_stand_in_lists() -> None:
    config = load_config(
        TrainConfig, ["experiment=demo_video2world", "objective.high_sigma_range=['${seed}',9]", "seed=3"]
    )
    assert config.objective.high_sigma_range == [3.0, 9.0]
