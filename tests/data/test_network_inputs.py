"""A conditioning is one field with a rule; what handles samples follows the rules and names no field."""

import inspect

import pytest
import torch

from nemo_cosmos.data.network_inputs import RULES, STORED
from nemo_cosmos.data.sample import LatentSample, collate
from nemo_cosmos.data.shards import decode_sample, encode_sample
from nemo_cosmos.errors import InputError
from nemo_cosmos.models.dit import CosmosDiT, DiTConfig, build_dit


def sample(key="a", **extra):
    return LatentSample(
        key, torch.randn(16, 3, 4, 6), torch.randn(5, 8), "caption", 29.97, 9, (32, 48, 64, 96), **extra
    )


def value_for(name, latent):
    """A value that the rule of ``name`` allows."""
    shape = [size if isinstance(size, int) else 2 for size in RULES[name].shape(latent)]
    if not RULES[name].real:
        return torch.arange(torch.Size(shape).numel()).reshape(shape)
    return torch.ones(shape, dtype=torch.uint8) if name == "padding_mask" else torch.randn(shape)


def test_inputs_have_the_names_of_the_networks_arguments():
    arguments = set(inspect.signature(CosmosDiT.forward).parameters) - {"self", "x", "timesteps"}
    assert set(RULES) == arguments


@pytest.mark.parametrize("name", STORED)
def test_each_stored_input_travels_from_the_record_to_the_batch(name):
    one = sample()
    setattr(one, name, value_for(name, one.latent))
    one.text = torch.randn(2, 5, 8) if name == "view_ids" else one.text
    assert RULES[name].problem(getattr(one, name), one.latent) is None
    back = decode_sample(*encode_sample(one))
    assert torch.equal(getattr(back, name), getattr(one, name))
    batch = collate([(0, back), (1, back)], 8).to(dtype=torch.bfloat16)
    got = getattr(batch.network_inputs(), name)
    assert got.shape == (2, *getattr(one, name).shape)
    assert (got.dtype == torch.bfloat16) == RULES[name].real


@pytest.mark.parametrize("name", STORED)
def test_a_value_of_another_shape_is_told(name):
    one = sample()
    assert "expected" in RULES[name].problem(torch.zeros(3, 9, 9, 9, 9), one.latent)


def test_numbers_that_are_not_finite_are_told():
    rays = torch.zeros(6, 3, 4, 6)
    rays[0, 0, 0, 0] = float("nan")
    assert "1 numbers" in RULES["plucker"].problem(rays, sample().latent)


def test_what_is_missing_becomes_zeros_or_an_error():
    padded = sample("b", padding_mask=torch.ones(1, 4, 6, dtype=torch.uint8))
    assert collate([(0, sample()), (1, padded)], 8).padding_mask.sum(dim=(1, 2, 3)).tolist() == [0, 24]
    with pytest.raises(InputError, match=r"'a'.*'plucker'"):
        collate([(0, sample()), (1, sample("b", plucker=torch.zeros(6, 3, 4, 6)))], 8)


def test_only_the_inputs_of_a_batch_reach_the_network():
    batch = collate([(0, sample(plucker=torch.randn(6, 3, 4, 6)))], 8)
    seen = {}

    def network(x, timesteps, text, **given):
        seen.update(given, text=text)
        return x

    mask = torch.zeros(1, 1, 3, 4, 6)
    batch.network_inputs(condition_mask=mask).feed(network, batch.latent, torch.zeros(1))
    assert set(seen) == {"text", "fps", "padding_mask", "plucker", "condition_mask"}
    assert seen["condition_mask"] is mask and seen["fps"].item() == pytest.approx(29.97, abs=1e-5)


def test_expanded_inputs_give_what_two_separate_evaluations_give():
    config = DiTConfig.preset("tiny-video2world-camera", text_width=8, num_layers=1)
    net = build_dit(config).eval()
    torch.nn.init.normal_(net.final_layer.linear.weight, std=0.1)
    batch = collate([(0, sample(plucker=torch.randn(6, 3, 4, 6)))], 8)
    both = batch.network_inputs(text=torch.cat([batch.text, batch.text * 2])).expand(2)
    x, time = batch.latent, torch.full((1,), 0.3)
    joint = both.feed(net, x.expand(2, -1, -1, -1, -1), time.expand(2))
    single = batch.network_inputs(text=batch.text * 2).feed(net, x, time)
    torch.testing.assert_close(joint[1:], single, atol=1e-5, rtol=1e-5)
