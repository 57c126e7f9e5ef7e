"""Names of the original commands: understood where they mean one of our settings, else answered."""

from __future__ import annotations

import sys
from collections.abc import Callable
from operator import attrgetter
from pathlib import Path
from typing import Any

import pytest

from nemo_cosmos import cli
from nemo_cosmos.config import TrainConfig, load_config
from nemo_cosmos.errors import InputError
from nemo_cosmos.other_names import TOKENIZER, TRAINING, OtherName, table, translate
from nemo_cosmos.schema import types_of
from nemo_cosmos.training.tokenizer.config import TokenizerTrainConfig

PAGE = Path(__file__).parents[1] / "docs" / "other_names.md"
SCHEMAS: list[tuple[type, Any]] = [(TrainConfig, TRAINING), (TokenizerTrainConfig, TOKENIZER)]


@pytest.mark.parametrize(("schema", "names"), SCHEMAS)
def test_every_name_stands_for_a_setting_that_there_is(schema: type, names: dict[str, OtherName]) -> None:
    own = set(types_of(schema))
    for written, name in names.items():
        assert (name.key is None) == bool(name.answer), written
        assert name.key is None or name.key in own, written


@pytest.mark.parametrize(("schema", "names"), SCHEMAS)
def test_no_name_hides_one_of_ours(schema: type, names: dict[str, OtherName]) -> None:
    for key in types_of(schema):
        assert translate(names, key) == (key, None)


@pytest.mark.parametrize(
    ("word", "key", "value"),
    [
        ("checkpoint.load_path=/weights/model.pt", "model.init_from", "/weights/model.pt"),
        ("scheduler.warm_up_steps=[2000]", "optimizer.warmup_steps", 2000),
        ("scheduler.cycle_lengths=[40000]", "optimizer.cycle_steps", 40000),
        ("scheduler.f_max=0.25", "optimizer.f_max", 0.25),
        ("scheduler.f_min=[0.1]", "optimizer.f_min", 0.1),
        ("model.config.ema.rate=0.05", "ema.rate", 0.05),
        ("model.config.precision=float32", "trainer.precision", "fp32"),
        ("model_parallel.tensor_model_parallel_size=2", "parallel.tensor", 2),
        ("job.project=mine", "project", "mine"),
        ("trainer.seed=5", "seed", 5),
        ("trainer.callbacks.grad_clip.clip_norm=0.5", "optimizer.clip_grad", 0.5),
        (
            "model.conditioner.video_cond_bool.first_random_n_num_condition_t_max=1",
            "objective.condition.max_frames",
            1,
        ),
        ("trainer.strategy.context_parallel_size=4", "parallel.context", 4),
        ("data.global_batch_size=32", "data.global_batch", 32),
        ("trainer.cudnn.deterministic=True", "trainer.deterministic", True),
    ],
)
def test_a_name_with_the_same_meaning_is_understood(word: str, key: str, value: object) -> None:
    assert attrgetter(key)(load_config(TrainConfig, ["experiment=demo_video2world", word])) == value


@pytest.mark.parametrize(
    ("word", "answer"),
    [
        ("dataloader_train.batch_size=2", "data.micro_batch is the samples"),
        ("trainer.run_validation=True", "is not validated while it trains"),
        ("optimizer.betas=[0.9,0.99]", "optimizer.beta1=0.9"),
        ("model.net.num_blocks=4", "model.overrides"),
        ("checkpoint.load_training_state=True", "goes on by itself"),
        ("dataloader_train.dataset.num_frames=93", "--frames"),
        ("scheduler=lambdalinear", "optimizer.warmup_steps"),
        ("scheduler.f_max=[0.2,0.1]", "expected one number"),
        ("model.config.train_architecture=full", "expected lora or base"),
        ("optimizer=fusedadamw", "optimizer is no choice but a section.*optimizer.lr"),
        ("ema=power", "ema.rate"),
        ("experiment=video2world_action_bridge_2frames", "actions are not trained here"),
    ],
)
def test_other_names_are_answered(word: str, answer: str) -> None:
    with pytest.raises(InputError, match=answer) as caught:
        load_config(TrainConfig, ["experiment=demo_video2world", word])
    assert "did you mean" not in str(caught.value)


def test_names_of_the_tokenizer_command() -> None:
    words = ["experiment=demo_tokenizer", "trainer.validation_iter=7", "checkpoint.load_training_state=true"]
    config = load_config(TokenizerTrainConfig, words, root="tokenizer_train")
    assert config.validation.every_n_steps == 7 and config.model.load_training_state


def test_python_values_are_translated_too() -> None:
    values = {"scheduler.f_max": [0.5], "trainer.max_iter": 9}
    config = load_config(TrainConfig, ["experiment=demo_video2world"], values=values)
    assert (config.optimizer.f_max, config.trainer.max_steps) == (0.5, 9)


def test_the_page_shows_the_tables() -> None:
    page = PAGE.read_text(encoding="utf-8")
    for names in (TRAINING, TOKENIZER):
        assert table(names) in page, "python -m nemo_cosmos.other_names > docs/other_names.md writes it"


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """The command line in this process: its exit status, standard output and standard error."""

    def run(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["nemo-cosmos", *words])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        said = capsys.readouterr()
        return int(ended.value.code or 0), said.out, said.err

    return run


def test_the_original_command_line_is_taken_as_it_is(run: Callable[..., tuple[int, str, str]]) -> None:
    original = "--config=cosmos_predict1/diffusion/training/config/config.py"
    words = ["--dryrun", "--", "experiment=video2world_7b_example_hdvila", "trainer.max_iter=7"]
    status, out, error = run("train", original, *words)
    assert status == 0 and "is not needed" in error and "max_steps: 7" in out
    status, _, error = run("train", "--config=mine.yaml", *words)
    assert status == 2 and "settings are not read from files" in error


def test_experiments_are_compared(run: Callable[..., tuple[int, str, str]]) -> None:
    status, out, _ = run("experiments", "diff", "text2world_7b_example_hdvila", "video2world_7b_example_hdvila")
    assert status == 0 and "objective.sigma_multiplier" in out and "optimizer.lr" not in out
    _, same, _ = run("experiments", "diff", "demo_tokenizer", "demo_tokenizer")
    assert "have the same settings" in same
