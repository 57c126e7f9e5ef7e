"""``trainer.deterministic``: what is switched on for the run, and that it is switched off after it."""

from __future__ import annotations

import os

import pytest
import torch

from nemo_cosmos.config import TrainConfig, load_config
from nemo_cosmos.errors import InputError
from nemo_cosmos.models.dit import attention
from nemo_cosmos.training.deterministic import CUBLAS_WORKSPACE, deterministic_kernels, refuse_nondeterministic
from nemo_cosmos.training.tokenizer import trainer
from nemo_cosmos.training.tokenizer.config import TokenizerTrainConfig


def test_it_holds_within_the_run_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "environ", dict(os.environ))
    with deterministic_kernels(True):
        assert torch.are_deterministic_algorithms_enabled()
        assert not torch.is_deterministic_algorithms_warn_only_enabled()
        assert os.environ[CUBLAS_WORKSPACE] in (":4096:8", ":16:8")
    assert not torch.are_deterministic_algorithms_enabled()
    with deterministic_kernels(False):
        assert not torch.are_deterministic_algorithms_enabled()


def test_attention_never_asks_for_cudnn() -> None:
    assert torch.nn.attention.SDPBackend.CUDNN_ATTENTION not in attention.DETERMINISTIC_BACKENDS


def test_a_setting_that_takes_it_back_is_refused() -> None:
    words = ["experiment=demo_video2world", "data.path=x", "trainer.deterministic=true"]
    refuse_nondeterministic(load_config(TrainConfig, words))
    with pytest.raises(InputError, match="context_backend"):
        refuse_nondeterministic(load_config(TrainConfig, [*words, "parallel.context_backend=transformer_engine"]))


@pytest.mark.parametrize("wanted", [False, True])
def test_tokenizers_are_trained_within_it_where_asked_to(wanted: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def make(config: TokenizerTrainConfig, interrupts: object) -> None:
        seen.append(torch.are_deterministic_algorithms_enabled())
        raise InputError("seen")

    monkeypatch.setattr(trainer, "TokenizerTrainer", make)
    words = ["experiment=demo_tokenizer", f"trainer.deterministic={str(wanted).lower()}"]
    with pytest.raises(InputError, match="seen"):
        trainer.train(load_config(TokenizerTrainConfig, words, root="tokenizer_train"))
    assert seen == [wanted] and not torch.are_deterministic_algorithms_enabled()
