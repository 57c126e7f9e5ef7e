"""Sizes, names and the round trip of released state dicts."""

from __future__ import annotations

import pytest
import torch

from nemo_cosmos.errors import InputError
from nemo_cosmos.models.dit import PRESETS, DiTConfig, build_dit
from tests.models.dit.golden import count_parameters

# Parameters of the networks, and entries of the released state dicts beside logvar and counters of other families.
SIZES = {
    "predict1-7b-text2world": (7_236_192_256, 571),
    "predict1-7b-video2world": (7_236_208_640, 571),
    "predict1-14b-text2world": (14_267_149_312, 731),
    "predict1-14b-video2world": (14_267_169_792, 731),
    "predict1-7b-text2world-multiview": (7_234_783_280, 571),
    "predict1-7b-video2world-multiview": (7_234_799_664, 571),
    "predict2-2b-text2image": (1_956_405_248, 574),
    "predict2-2b-video2world": (1_956_413_440, 574),
    "predict2-2b-multiview": (1_956_470_833, 593),
    "predict2-14b-text2image": (14_265_265_152, 734),
    "predict2-14b-video2world": (14_265_285_632, 734),
}


@pytest.mark.parametrize("preset", SIZES)
def test_full_size(preset: str) -> None:
    with torch.device("meta"):
        net = build_dit(DiTConfig.preset(preset))
        assert (count_parameters(net), len(net.to_original())) == SIZES[preset]


@pytest.mark.parametrize("preset", [name for name in PRESETS if name.startswith("tiny-")])
def test_round_trip(preset: str) -> None:
    config = DiTConfig.preset(preset, num_layers=2, hidden_size=64, text_width=32)
    state = build_dit(config, seed=1).to_original()
    assert all(name.startswith("net.") for name in state)
    for buffer in [name for name in state if "pos_embedder" in name and "extra" not in name]:
        state[buffer] = state[buffer].bfloat16()
    other = build_dit(config, seed=2)
    report = other.load_original({name.removeprefix("net."): tensor for name, tensor in state.items()})
    assert report.complete
    back = other.to_original()
    assert back.keys() == state.keys()
    for name, tensor in state.items():
        assert back[name].dtype == tensor.dtype, name
        assert torch.equal(back[name], tensor), name


def test_known_extras_are_passed_over() -> None:
    net = build_dit(DiTConfig.preset("tiny-video2world"))
    state = net.to_original()
    state["logvar.0.freqs"] = torch.zeros(128)
    state["net.blocks.block0.blocks.0.block.attn.to_q.1._extra_state"] = torch.zeros(0)
    report = net.load_original(state)
    assert report.complete
    assert "logvar.0.freqs" in report.passed_over


def test_strict_load_names_what_is_wrong() -> None:
    net = build_dit(DiTConfig.preset("tiny-video2world"))
    before = net.to_original()
    state = net.to_original()
    del state["net.x_embedder.proj.1.weight"]
    state["net.bogus"] = torch.zeros(1)
    state["net.final_layer.linear.weight"] = torch.zeros(3, 3)
    for i in range(25):
        state[f"net.extra{i}"] = torch.zeros(1)
    with pytest.raises(InputError) as error:
        net.load_original(state)
    message = str(error.value)
    assert "missing: x_embedder.proj.1.weight" in message
    assert "final_layer.linear.weight: [3, 3], expected [64, 128]" in message
    assert "26 unexpected" in message
    assert "and 6 more" in message
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.to_original().items())
    report = net.load_original(state, strict=False)
    assert not report.complete
    assert report.missing == ["x_embedder.proj.1.weight"]


def test_preset_names_the_nearest_field() -> None:
    with pytest.raises(InputError, match="hidden_size"):
        DiTConfig.preset("predict1-7b-video2world", hiden_size=64)
    with pytest.raises(InputError, match="predict1-7b-video2world"):
        DiTConfig.preset("predict1-7b-video2word")


def test_initial_weights_are_reproducible() -> None:
    config = DiTConfig.preset("tiny-video2world", num_layers=1)
    first, second, other = (build_dit(config, seed=seed).to_original() for seed in (3, 3, 4))
    name = "net.blocks.block0.blocks.0.block.attn.to_q.0.weight"
    assert torch.equal(first[name], second[name])
    assert not torch.equal(first[name], other[name])
    bound = (6 / (128 + 128)) ** 0.5
    assert 0.95 * bound < first[name].abs().max() <= bound
    assert first["net.blocks.block0.blocks.0.adaLN_modulation.2.weight"].abs().max() == 0
    assert first["net.final_layer.adaLN_modulation.2.weight"].abs().max() > 0
