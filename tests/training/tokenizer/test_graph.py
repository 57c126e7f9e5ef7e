"""The graph of a tokenizer's passes: where it is recorded, and that it says what the network says."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from nemo_cosmos.config import load_config
from nemo_cosmos.errors import InputError
from nemo_cosmos.models.tokenizer import build_tokenizer
from nemo_cosmos.training.tokenizer.config import TokenizerTrainConfig
from nemo_cosmos.training.tokenizer.graph import GraphedTokenizer, wants_graph

CUDA, CPU = torch.device("cuda"), torch.device("cpu")


def configure(*overrides: str) -> TokenizerTrainConfig:
    return load_config(TokenizerTrainConfig, ["experiment=tiny_tokenizer", *overrides], root="tokenizer_train")


def test_tiny_tokenizer_is_recorded_on_a_gpu_alone() -> None:
    config = configure()
    assert wants_graph(config, CUDA, 1)
    assert not wants_graph(config, CPU, 1)
    assert not wants_graph(config, CUDA, 2)
    assert not wants_graph(configure("trainer.cuda_graph=false"), CUDA, 1)


@pytest.mark.parametrize(
    ("setting", "device", "world", "named"),
    [
        ("trainer.compile=false", CPU, 1, "no GPU"),
        ("trainer.compile=false", CUDA, 2, "2 processes"),
        ("trainer.compile=true", CUDA, 1, "compile=true"),
        ("trainer.activation_checkpointing=true", CUDA, 1, "activation_checkpointing"),
        ("loss.adversarial.enabled=true", CUDA, 1, "adversarial"),
        ("loss.video_consistency.enabled=true", CUDA, 1, "video_consistency"),
    ],
)
def test_a_graph_that_cannot_be_is_refused(setting: str, device: torch.device, world: int, named: str) -> None:
    with pytest.raises(InputError, match=rf"trainer.cuda_graph=true.*{named}"):
        wants_graph(configure("trainer.cuda_graph=true", setting), device, world)
    assert not wants_graph(configure("trainer.cuda_graph=null", setting), device, world)


@pytest.mark.filterwarnings("ignore:User provided device_type")
@pytest.mark.parametrize("kind", [{}, {"formulation": "VAE"}, {"discrete": True}])
def test_recorded_passes_answer_as_the_network(kind: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    preset = "DV4x8x8-360p" if kind.pop("discrete", False) else "CV4x8x8-360p"
    module = build_tokenizer(preset, channels=4, channels_mult=(1, 2, 2), num_res_blocks=1, chunk_frames=5, **kind)
    video = torch.rand(1, 3, 5, 16, 16) * 2 - 1
    monkeypatch.setattr(torch.cuda, "make_graphed_callables", _played_once)
    graphed = GraphedTokenizer(module, video, "fp32")
    assert not list(graphed.parameters())
    torch.manual_seed(1)
    given = graphed(video)
    torch.manual_seed(1)
    for name, expected in module(video)._asdict().items():
        found = getattr(given, name)
        assert (found is None) == (expected is None)
        assert expected is None or torch.equal(found, expected)


def _played_once(passes: nn.Module, sample: tuple[torch.Tensor, ...]) -> nn.Module:
    passes(*sample)
    return passes
