"""Adapters in one process: what they add, what they train, what they merge to."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from nemo_cosmos.checkpoint.lora import MergedWeights
from nemo_cosmos.errors import InputError
from nemo_cosmos.models.dit import CosmosDiT, DiTConfig, LayerOptions, build_dit
from nemo_cosmos.models.dit.lora import LoraSpec, adapter_entries, adapter_parameters, add_adapters

ALL = ("to_q", "to_k", "to_v", "to_out.0", "ff.net.0.proj", "ff.net.2")
SMALL = {"num_layers": 2, "hidden_size": 64, "num_attention_heads": 4, "text_width": 32, "adaln_lora_dim": 8}


def network(preset: str, **options: str) -> CosmosDiT:
    return build_dit(DiTConfig.preset(preset, **SMALL), options=LayerOptions(**options), seed=3)  # type: ignore[arg-type]


def output(net: CosmosDiT) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 16, 3, 8, 12, generator=generator)
    text = torch.randn(2, 10, 32, generator=generator)
    return net(x, torch.tensor([-0.3, 0.5]), text, fps=torch.tensor([24.0, 30.0]))


def randomise(net: CosmosDiT) -> dict[str, Tensor]:
    """Makes B count; gives the adapters by their diffusers names."""
    assert net.lora is not None
    own = dict(adapter_parameters(net))
    for name, parameter in own.items():
        if name.endswith("lora_B"):
            parameter.data.normal_(std=1.0, generator=torch.Generator().manual_seed(len(name)))
    return {
        f"{entry.diffusers}.{factor}": own[f"{entry.ours}.{factor}"].detach()
        for entry in adapter_entries(net.dit_config, net.lora)
        for factor in ("lora_A", "lora_B")
    }


@pytest.mark.parametrize("preset", ["tiny-text2world", "tiny-video2world", "tiny-predict2-video2world"])
@pytest.mark.parametrize(
    "targets", [ALL, ("to_k",), ("attn1.to_v", "attn2.to_q", "ff.net.2")], ids=["all", "k", "few"]
)
def test_merging_is_exact(preset: str, targets: tuple[str, ...]) -> None:
    net, spec = network(preset), LoraSpec(4, 6.0, targets)
    base = net.to_original()
    with torch.no_grad():
        before = output(net)
        add_adapters(net, spec, seed=0)
        torch.testing.assert_close(output(net), before, msg="B is zero at first")
        adapters = randomise(net)
        adapted = output(net)
    merged = network(preset)
    merged.load_original(MergedWeights(net.dit_config, base, spec, adapters))
    with torch.no_grad():
        difference = (output(merged) - adapted).norm() / adapted.norm()
    assert (adapted - before).norm() / before.norm() > 1e-3
    assert difference < 1e-6


@pytest.mark.parametrize("recompute", ["selective", "full"])
def test_only_adapters_have_gradients(recompute: str) -> None:
    gradients = []
    for option in ("none", recompute):
        net = network("tiny-video2world", recompute=option)
        add_adapters(net, LoraSpec(4, 4.0, ALL), seed=0)
        randomise(net)
        output(net.train()).square().mean().backward()
        trained = {name for name, parameter in net.named_parameters() if parameter.grad is not None}
        assert trained == {name for name, _ in adapter_parameters(net)}
        gradients.append({name: parameter.grad for name, parameter in adapter_parameters(net)})
    assert len(gradients[0]) == 2 * 2 * 10
    assert all(torch.equal(gradients[1][name], gradient) for name, gradient in gradients[0].items())


@pytest.mark.parametrize(
    ("preset", "rank", "count"),
    [
        ("predict2-2b-video2world", 16, 22_937_600),
        ("predict2-14b-video2world", 16, 71_958_528),
        ("predict2-14b-video2world", 32, 143_917_056),
    ],
)
def test_parameter_count(preset: str, rank: int, count: int) -> None:
    with torch.device("meta"):
        net = build_dit(DiTConfig.preset(preset))
        add_adapters(net, LoraSpec(rank, rank, ALL), seed=0)
    assert sum(parameter.numel() for parameter in net.parameters() if parameter.requires_grad) == count


def test_first_values_are_those_of_peft() -> None:
    net = network("tiny-video2world")
    add_adapters(net, LoraSpec(8, 8.0, ALL), seed=0)
    a = dict(adapter_parameters(net))["layers.1.mlp.linear_fc2.adapters.ff_net_2.lora_A"].detach()
    assert a.shape == (8, 256)
    assert a.abs().max() <= 256**-0.5
    assert a.std() == pytest.approx(256**-0.5 / 3**0.5, rel=0.05)
    other = network("tiny-video2world")
    add_adapters(other, LoraSpec(8, 8.0, ("ff.net.2",)), seed=0)
    assert torch.equal(dict(adapter_parameters(other))["layers.1.mlp.linear_fc2.adapters.ff_net_2.lora_A"], a)


def test_mistakes() -> None:
    with pytest.raises(InputError, match=r"to_qq.*attn1\.to_q"):
        LoraSpec(4, 4.0, ("to_qq",))
    with pytest.raises(InputError, match="rank"):
        LoraSpec(0, 4.0, ALL)
    net = network("tiny-video2world")
    add_adapters(net, LoraSpec(4, 4.0, ALL), seed=0)
    with pytest.raises(RuntimeError, match="merge"):
        net.to_original()
    config, spec = net.dit_config, LoraSpec(4, 4.0, ("to_q",))
    base = network("tiny-video2world").to_original()
    adapters = randomise(net)
    with pytest.raises(InputError, match=r"32 unexpected: .* and 12 more"):
        MergedWeights(config, base, spec, adapters)
    del adapters["transformer_blocks.0.attn1.to_q.lora_A"]
    with pytest.raises(InputError, match=r"1 missing: transformer_blocks\.0\.attn1\.to_q\.lora_A"):
        MergedWeights(config, base, LoraSpec(4, 4.0, ALL), adapters)
