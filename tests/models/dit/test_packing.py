"""Samples of several shapes in one sequence have the outputs and gradients that each has alone."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from nemo_cosmos.models.dit import CosmosDiT, DiTConfig, LayerOptions, build_dit, packing
from nemo_cosmos.models.dit.packing import Arguments
from nemo_cosmos.parallel.context import SequenceSplit
from nemo_cosmos.parallel.groups import ParallelGroups

SMALL = {"num_layers": 2, "hidden_size": 32, "num_attention_heads": 2, "text_width": 12, "adaln_lora_dim": 8}
SHAPES = [(1, 4, 6), (3, 8, 2), (1, 4, 6), (2, 6, 6)]
PRESETS = [
    "tiny-predict2-text2image",
    "tiny-predict2-video2world",
    "tiny-predict2-multiview",
    "tiny-text2world",
    "tiny-video2world",
]


def network(preset: str, **options: Any) -> CosmosDiT:
    net = build_dit(DiTConfig.preset(preset, **SMALL), options=LayerOptions(**options), seed=3)
    with torch.no_grad():  # Nothing may stay at zero, where errors would not show.
        for parameter in net.parameters():
            parameter += 0.05 * torch.randn(
                parameter.shape, generator=torch.Generator().manual_seed(parameter.numel())
            )
    return net


def samples(net: CosmosDiT) -> list[Arguments]:
    """Each with its own shape, time or times, text of its own length, frame rate, masks and number of views."""
    config, generator, out = net.dit_config, torch.Generator().manual_seed(0), []
    for number, (frames, height, width) in enumerate(SHAPES):
        views = number + 1 if config.multiview else 1
        frames = frames * views

        def normal(*shape: int) -> Tensor:
            return torch.randn(1, *shape, generator=generator)

        sample = Arguments(
            normal(16, frames, height, width),
            torch.rand(1, frames, generator=generator) if number % 2 else torch.rand(1, generator=generator),
            normal(views * (3 + number), 12),
            fps=torch.tensor([20.0 + number]),
            padding_mask=(normal(1, 8 * height, 8 * width) > 1).float() if number > 1 else None,
            view_ids=torch.arange(views)[None].flip(1) if config.multiview else None,
        )
        if config.condition_mask:
            sample = replace(sample, condition_mask=(normal(1, frames, height, width) > 0).float())
        out.append(sample)
    return out


def gradients(net: CosmosDiT) -> dict[str, Tensor]:
    found = {name: p.grad.clone() for name, p in net.named_parameters() if p.grad is not None}
    net.zero_grad()
    return found


def alone_and_packed(net: CosmosDiT, given: list[Arguments]) -> tuple[list[Tensor], list[Tensor], float]:
    """The outputs of separate passes and of one, and the largest difference of a parameter's gradient."""
    weights = [torch.randn(s.x.shape, generator=torch.Generator().manual_seed(i)) for i, s in enumerate(given)]
    alone = [net(**vars(sample)) for sample in given]
    sum((out * weight).sum() for out, weight in zip(alone, weights, strict=True)).backward()  # type: ignore[union-attr]
    expected = gradients(net)
    packed = net.forward_packed(given)
    assert isinstance(packed, list)
    sum((out * weight).sum() for out, weight in zip(packed, weights, strict=True)).backward()  # type: ignore[union-attr]
    found = gradients(net)
    assert found.keys() == expected.keys()
    largest = max(float(value.norm()) for value in expected.values())
    worst = max(float((found[n] - g).norm()) / max(float(g.norm()), 1e-3 * largest) for n, g in expected.items())
    return alone, packed, worst


@pytest.mark.parametrize("preset", PRESETS)
def test_a_pack_equals_its_samples(preset: str) -> None:
    net = network(preset)
    alone, packed, gradient = alone_and_packed(net, samples(net))
    for one, other in zip((out.detach() for out in alone), (out.detach() for out in packed), strict=True):
        largest = float(one.abs().max())
        assert one.shape == other.shape and largest > 0.1
        assert float((one - other).abs().max()) < 1e-6 * max(1.0, largest)
    assert gradient < 1e-5


@pytest.mark.parametrize("recompute", ["selective", "full"])
def test_with_padding_and_recomputation(recompute: str, monkeypatch: pytest.MonkeyPatch) -> None:
    split = packing.sequence_split
    monkeypatch.setattr(packing, "ROUNDED_TO", 64)
    monkeypatch.setattr(
        "nemo_cosmos.models.dit.model.sequence_split",
        lambda grids, groups, _: split(grids, groups, torch.device("cuda")),
    )
    net = network("tiny-predict2-video2world", recompute=recompute).train()
    given = samples(net)
    tokens = [net.dit_config.token_grid(*sample.x.shape[2:]).num_tokens for sample in given]
    assert sum(tokens) % 64
    alone, packed, gradient = alone_and_packed(net, given)
    assert all(torch.allclose(one, other, atol=1e-6, rtol=1e-6) for one, other in zip(alone, packed, strict=True))
    assert gradient < 1e-5


def test_a_sample_sees_nothing_of_the_others() -> None:
    net = network("tiny-predict2-text2image").eval()
    given = samples(net)
    others = [replace(s, x=s.x + 1, text=s.text * 2, timesteps=s.timesteps / 2) for s in given]
    with torch.no_grad():
        before = net.forward_packed(given)
        after = net.forward_packed([others[0], given[1], *others[2:]])
    assert torch.equal(before[1], after[1]) and not torch.allclose(before[0], after[0])


def test_bfloat16() -> None:
    net = network("tiny-predict2-text2image").to(torch.bfloat16).eval()
    net.config.params_dtype = torch.bfloat16
    given = samples(net)
    with torch.no_grad():
        alone, packed = [net(**vars(sample)) for sample in given], net.forward_packed(given)
    for one, other in zip(alone, packed, strict=True):
        assert float((one - other).float().norm() / one.float().norm()) < 2e-2


def test_what_is_no_pack() -> None:
    net = network("tiny-predict2-text2image")
    two = Arguments(torch.zeros(2, 16, 1, 4, 4), torch.zeros(2), torch.zeros(2, 3, 12))
    for wrong in ([], [two]):
        with pytest.raises(ValueError, match="at least one sample"):
            net.forward_packed(wrong)


class Group:
    def __init__(self, rank: int, size: int) -> None:
        self._rank, self._size = rank, size

    def rank(self) -> int:
        return self._rank

    def size(self) -> int:
        return self._size


@pytest.mark.parametrize("ranks, multiple", [(1, 1), (2, 1), (4, 1), (4, 32), (8, 16)])
def test_every_token_is_asked_for_once_and_padding_too(ranks: int, multiple: int) -> None:
    blocks = (3, 5, 1, 4)
    seen: list[tuple[int, slice]] = []
    for rank in range(ranks):
        groups = ParallelGroups(context=Group(rank, ranks) if ranks > 1 else None)  # type: ignore[arg-type]
        split = SequenceSplit(sum(blocks), groups, blocks, multiple)
        own = split.own_blocks()
        assert own and own[0][0].start == 0 and own[-1][0].stop == split.context_tokens
        seen += [(rank * split.context_tokens + i, keys) for cut, keys in own for i in range(cut.start, cut.stop)]
    assert [token for token, _ in seen] == list(range(split.padded_tokens))
    for first, length in zip((0, 3, 8, 9), blocks, strict=True):
        assert {(keys.start, keys.stop) for token, keys in seen if first <= token < first + length} == {
            (first, first + length)
        }
