"""Settings: values in range, no secrets, and no interpolation that reaches beyond them."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest

from nemo_cosmos.checkpoint.sources import read_model_config
from nemo_cosmos.config import TrainConfig, dump_config, load_config, read_config
from nemo_cosmos.errors import InputError
from nemo_cosmos.inference.config import GenerationConfig
from nemo_cosmos.models.dit import DiTConfig
from nemo_cosmos.models.tokenizer.config import TokenizerConfig
from nemo_cosmos.secrets import hide_secrets_in_logs, holds_secret, is_secret_name, redact
from nemo_cosmos.training.tokenizer.config import TokenizerTrainConfig

TOKEN = "hf_" + "a1B2" * 8


def refused(override: str, root: str = "train") -> str:
    schema: Any = TrainConfig if root == "train" else TokenizerTrainConfig
    name = "demo_video2world" if root == "train" else "demo_tokenizer"
    with pytest.raises(InputError) as caught:
        load_config(schema, [f"experiment={name}", override], root=root)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    "override",
    [
        "seed=-1", "seed=99999999999999999999", "seed=true", "seed=1.5", "optimizer.lr=nan", "optimizer.lr=inf",
        "optimizer.lr=-1e-3", "optimizer.lr=1e9", "optimizer.warmup_steps=-1", "optimizer.beta1=1",
        "optimizer.beta2=1.5",
        "optimizer.clip_grad=inf", "objective.text_dropout=1.1", "objective.p_std=-1", "objective.p_mean=nan",
        "objective.sigma_data=0", "objective.sigma_multiplier=inf", "data.num_workers=-1", "data.num_workers=100000",
        "data.micro_batch=0", "data.size=[0,64]", "data.num_frames=-5", "trainer.devices=-3", "trainer.max_steps=1e30",
        "ema.rate=0", "ema.rate=nan", "lora.alpha=inf", "parallel.virtual_pipeline=0", "checkpoint.keep=0",
        "model.overrides={hidden_size: nan}",
    ],
)  # fmt: skip
def test_values_out_of_range_are_refused_by_key(override: str) -> None:
    assert override.split("=")[0] in refused(override)


@pytest.mark.parametrize(
    "override",
    [
        "loss.color.values=[nan]", "loss.flow.values=[-1.0]", "loss.kl.boundaries=[-5]", "data.crop=[0,0]",
        "data.flip_probability=2", "ema.decay=1", "optimizer.min_ratio=inf", "loss.adversarial.lr=nan", "seed=-1",
    ],
)  # fmt: skip
def test_values_of_the_tokenizer_trainer_too(override: str) -> None:
    assert override.split("=")[0] in refused(override, "tokenizer_train")


def test_the_allowed_range_is_said() -> None:
    assert "at least 0 and at most 1" in refused("objective.text_dropout=7")
    assert "more than 0" in refused("objective.sigma_data=0")
    assert "less than 1" in refused("optimizer.beta1=1")
    assert "finite" in refused("optimizer.lr=inf")


@pytest.mark.parametrize(
    "value",
    ["${oc.env:HF_TOKEN}", "${oc.env:PATH,x}", "${oc.decode:'1'}", "${oc.create:{a: 1}}", "${oc.select:seed}",
     "${oc.env:HOME,${oc.env:PATH}}", "${hydra:runtime.cwd}", "${name}"],
)  # fmt: skip
def test_other_interpolations_are_refused(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert TOKEN not in refused(f"name='{value}'" if "'" not in value else f"name={value}")


def test_a_file_of_settings_is_held_to_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_PASSWORD", "correct horse")
    file = tmp_path / "config.yaml"
    whole = dump_config(load_config(TrainConfig, ["experiment=demo_video2world"]))
    for line in ("name: ${oc.env:SOME_PASSWORD}", "name: correct horse", "seed: -1", "name: &a x", "name: !!set {a}"):
        key = line.split(":")[0]
        lines = [line if old.startswith(f"{key}:") else old for old in whole.splitlines()]
        file.write_text("\n".join(lines + (["group: *a"] if "&a" in line else [])))
        with pytest.raises(InputError, match=r"config\.yaml") as caught:
            read_config(TrainConfig, file)
        assert "correct horse" not in str(caught.value)


def test_secrets_are_no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "0123456789abcdef")
    for override in (f"data.path=/x/{TOKEN}", "model.overrides={api_key: abc}", "name=a-0123456789abcdef-b"):
        said = refused(override)
        assert "secret" in said and TOKEN not in said and "0123456789abcdef" not in said


def test_what_counts_as_a_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HF_TOKEN", "WANDB_API_KEY", "AWS_SECRET_ACCESS_KEY", "hub.token", "db_password", "apikey"):
        assert is_secret_name(name), name
    for name in ("tokenizer", "data.tokenizer_path", "text_length", "keep", "tokens_per_second", "monkey", "key"):
        assert not is_secret_name(name), name
    assert holds_secret(f"x {TOKEN}") and holds_secret("https://me:pass@host/x") and not holds_secret("hf_hub/model")
    monkeypatch.setenv("MY_SECRET", "sesame-open")
    assert redact(f"say sesame-open, {TOKEN}") == "say ***, ***"


@pytest.mark.parametrize(
    "value", [None, True, -1, 0, 2**40, 1.5, float("nan"), float("inf"), "x", [], {}, [1, "a", 2]]
)
def test_networks_in_files_are_typed(tmp_path: Path, value: Any) -> None:
    whole = DiTConfig.preset("tiny-video2world").to_dict()
    for key in whole:
        (tmp_path / "model_config.json").write_text(json.dumps({**whole, key: value}))
        try:
            config = read_model_config(tmp_path)
        except InputError as error:
            assert "model_config.json" in str(error) and "\n" not in str(error)
        else:
            assert type(getattr(config, key)) is type(getattr(DiTConfig.preset("tiny-video2world"), key))


@pytest.mark.parametrize("value", [None, True, -1, 0, 2**40, 1.5, float("nan"), "x", [], {}, [1, "a"], [2] * 1000])
def test_tokenizers_in_files_are_typed(value: Any) -> None:
    whole = TokenizerConfig.preset("CV4x8x8-360p").as_dict()
    for key in whole:
        try:
            config = TokenizerConfig.from_dict({**whole, key: value}, origin="x/config.json")
        except InputError as error:
            assert str(error).startswith("x/config.json: ")
        else:
            expected = type(getattr(TokenizerConfig.preset("CV4x8x8-360p"), key))
            assert isinstance(getattr(config, key), expected | int if expected is float else expected)
    for values in ([], None, "x", {**whole, "huge": 1}, {}):
        with pytest.raises(InputError):
            TokenizerConfig.from_dict(values)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "setting",
    [{"guidance": float("nan")}, {"guidance": float("inf")}, {"guidance": 1e9}, {"num_steps": 10**9}, {"num_steps": 1},
     {"fps": float("inf")}, {"fps": -1.0}, {"fps": 1e9}, {"height": 10**6}, {"width": 0}, {"num_frames": 10**9},
     {"seed": -1}, {"seed": 2**40}, {"seed": True}, {"crf": 99}],
)  # fmt: skip
def test_settings_of_generation_have_ranges(setting: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=next(iter(setting))):
        GenerationConfig(**setting)


def test_log_lines_have_no_secrets(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    factory = logging.getLogRecordFactory()
    monkeypatch.setenv("MY_API_KEY", "sesame-open")
    hide_secrets_in_logs()
    try:
        logging.getLogger("another.library").warning("with %s and %r", TOKEN, {"key": "sesame-open"})
        try:
            raise ValueError(f"no entry for {TOKEN}")
        except ValueError:
            logging.getLogger("nemo_cosmos").exception("failed with %s", "sesame-open")
    finally:
        logging.setLogRecordFactory(factory)
    assert "with *** and {'key': '***'}" in caplog.text and "failed with ***" in caplog.text
    assert "ValueError: no entry for ***" in caplog.text
    assert TOKEN not in caplog.text and "sesame" not in caplog.text
