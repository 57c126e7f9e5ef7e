"""Weights of a network without camera rays in one that has them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from nemo_cosmos.errors import InputError
from nemo_cosmos.models.dit import CosmosDiT, DiTConfig, build_dit
from nemo_cosmos.models.dit.growth import GrownWeights, column_map, grow_columns, grown_weights

SMALL: dict[str, Any] = {"num_layers": 2, "hidden_size": 64, "num_attention_heads": 4, "text_width": 16,
                         "adaln_lora_dim": 8}  # fmt: skip
NAME = "x_embedder.proj.1.weight"


def configs(**fields: Any) -> tuple[DiTConfig, DiTConfig]:
    return tuple(DiTConfig.preset(f"tiny-video2world{kind}", **SMALL, **fields) for kind in ("", "-camera"))  # type: ignore[return-value]


def output(net: CosmosDiT, plucker: Tensor | None = None, channels: int = 16) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, channels, 3, 8, 12, generator=generator)
    mask = torch.zeros(2, 1, 3, 8, 12)
    mask[:, :, :1] = 1
    padding = torch.zeros(2, 1, 8, 12)
    padding[..., -2:] = 1
    text = torch.randn(2, 10, 16, generator=generator)
    told = {"fps": torch.tensor([7.0, 24.0]), "padding_mask": padding, "condition_mask": mask}
    return net(
        x, torch.tensor([-0.3, 0.5]), text, **told, **({} if plucker is None else {"plucker": plucker})
    ).detach()


def test_the_released_columns() -> None:
    base = DiTConfig.preset("predict1-7b-video2world").channel_groups
    camera = DiTConfig.preset("predict1-7b-video2world-camera").channel_groups
    columns = column_map(base, camera, 2)
    assert len(columns) == 96
    assert columns[:68] == list(range(68))
    assert columns[68:92] == [None] * 24
    assert columns[92:] == [68, 69, 70, 71]


@pytest.mark.parametrize("fields", [{}, {"in_channels": 4, "out_channels": 4}, {"patch_size": 1}, {"patch_size": 4}])
def test_the_network_computes_what_it_did_whatever_the_rays(fields: dict[str, int]) -> None:
    before, after = configs(**fields)
    base, grown = build_dit(before, seed=3), build_dit(after, seed=4)
    channels = before.in_channels
    report = grown.load_original(grown_weights(after, base.to_original()))
    assert report.complete
    assert report.grown is not None and report.grown in str(report) and "plucker are zero" in report.grown
    expected = output(base, channels=channels)
    for scale in (0.0, 1.0, 30.0):
        rays = scale * torch.randn(2, 6, 3, 8, 12, generator=torch.Generator().manual_seed(1))
        torch.testing.assert_close(output(grown, rays, channels), expected, atol=1e-6, rtol=1e-6)


def test_new_columns_learn() -> None:
    before, after = configs()
    grown = build_dit(after, seed=4)
    grown.load_original(grown_weights(after, build_dit(before, seed=3).to_original()))
    net_output = grown(
        torch.randn(1, 16, 2, 4, 4), torch.zeros(1), torch.randn(1, 3, 16), plucker=torch.randn(1, 6, 2, 4, 4)
    )
    net_output.square().sum().backward()
    gradient = grown.patch_embedding.weight.grad
    assert gradient is not None and gradient[:, 68:92].abs().min(0).values.sum() > 0


def test_weights_that_fit_or_are_of_another_network_stay_as_they_are() -> None:
    before, after = configs()
    state = build_dit(before).to_original()
    assert grown_weights(before, state) is state
    for config in (
        DiTConfig.preset("tiny-text2world", **SMALL),
        DiTConfig.preset("tiny-video2world", **SMALL, in_channels=8),
    ):
        other = build_dit(config).to_original()
        assert grown_weights(after, other) is other
    wide = build_dit(DiTConfig.preset("tiny-video2world", **{**SMALL, "hidden_size": 128})).to_original()
    assert grown_weights(after, wide) is wide
    del state[f"net.{NAME}"]
    assert grown_weights(after, state) is state


def test_loading_alone_does_not_grow_and_says_how() -> None:
    before, after = configs()
    state = build_dit(before).to_original()
    with pytest.raises(
        InputError, match=r"\[64, 72\], expected \[64, 96\](.|\n)*model.init_from.*nemo-cosmos convert"
    ):
        build_dit(after).load_original(state)
    del state["net.final_layer.linear.weight"]
    with pytest.raises(InputError) as told:
        build_dit(after).load_original(state)
    assert "model.init_from" not in str(told.value)


def test_other_channels_by_name() -> None:
    weight = torch.arange(8.0).repeat(3, 1)
    grown = grow_columns(weight, {"latent": 6, "padding_mask": 2}, {"latent": 6, "view": 3, "padding_mask": 2}, 1)
    assert grown[0].tolist() == [0, 1, 2, 3, 4, 5, 0, 0, 0, 6, 7]
    with pytest.raises(InputError, match="2 channels of view: the network has 0"):
        column_map({"latent": 4, "view": 2}, {"latent": 4}, 2)
    with pytest.raises(InputError, match="expected 9 columns"):
        grow_columns(weight, {"latent": 9}, {"latent": 9, "view": 1}, 1)


def test_several_groups_of_which_one_is_missing() -> None:
    views = DiTConfig.preset("tiny-video2world-multiview", **SMALL, plucker_channels=5)
    groups = views.channel_groups
    for missing in ("plucker", "view"):
        columns = 4 * (sum(groups.values()) - groups[missing])
        state = {NAME: torch.ones(64, columns)}
        grown = grown_weights(views, state, ("plucker", "view"))
        assert isinstance(grown, GrownWeights) and grown.shape_of(NAME) == (64, views.patch_features)
        assert (grown[NAME] == 0).sum() == 64 * 4 * groups[missing]
