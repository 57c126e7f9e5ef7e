"""What objectives draw for samples of several views, and what the network is given for them."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace

import pytest
import torch

from nemo_cosmos.config import TrainConfig, load_config
from nemo_cosmos.diffusion.objectives import EDMObjective, Objective, RectifiedFlowObjective
from nemo_cosmos.models.dit import DiTConfig
from nemo_cosmos.training.objective import training_objective

VIEWS, FRAMES = 3, 4
SHAPE = (16, VIEWS * FRAMES, 2, 2)


def objective(experiment: str) -> Objective:
    config = load_config(TrainConfig, [f"experiment={experiment}"])
    return training_objective(config.objective, DiTConfig.preset(config.model.preset))


@pytest.mark.parametrize(
    "experiment, kind, counts, multiplier, high",
    [
        ("predict2_multiview_training_2b_720p_10fps_7views_29frames_waymo5views", RectifiedFlowObjective, {0, 1},
         math.sqrt(8), 0.05),
        ("video2world_multiview_7b_example", EDMObjective, {0, 1, 2}, 1.0, 0.0),
    ],
)  # fmt: skip
def test_every_view_of_a_sample_has_as_many_given_frames(
    experiment: str, kind: type[Objective], counts: set[int], multiplier: float, high: float
) -> None:
    chosen = objective(experiment)
    assert isinstance(chosen, kind)
    # Noise of a few numbers, so that many samples can be looked at.
    draw = chosen.draw(range(3000), SHAPE, seed=1, device=torch.device("cpu"), num_views=VIEWS)
    assert draw.indicator is not None
    given = draw.indicator.unflatten(1, (VIEWS, FRAMES))
    assert (given == given[:, :1]).all()
    assert torch.equal(given[:, 0].sum(1).long(), draw.num_condition_frames)
    assert (given.diff(dim=2) <= 0).all()
    found = Counter(draw.num_condition_frames.tolist())
    assert set(found) == counts
    assert all(number == pytest.approx(3000 / len(counts), rel=0.1) for number in found.values())
    assert draw.drop_text.float().mean() == pytest.approx(0.2, abs=0.025)
    below = draw.sigma[draw.sigma < 200]
    assert below.log().mean().exp() == pytest.approx(multiplier, rel=0.1)
    assert (draw.sigma > 200).float().mean() == pytest.approx(high, abs=0.015)
    assert draw.sigma.max() < 1e5


def test_given_frames_of_every_view_enter_clean_at_a_time_of_their_own() -> None:
    flow = RectifiedFlowObjective()
    draw = flow.draw([0], SHAPE, seed=0, device=torch.device("cpu"), num_views=VIEWS)
    draw = replace(draw, indicator=torch.tensor([[1.0, 0, 0, 0] * VIEWS]))
    clean = torch.randn(1, *SHAPE)
    inputs = flow.training_input(clean, draw)
    assert inputs.timesteps.shape == (1, VIEWS * FRAMES)
    assert inputs.timesteps[0, ::FRAMES] == pytest.approx([1e-4 / 1.0001] * VIEWS)
    assert torch.equal(inputs.sample[:, :, ::FRAMES], clean[:, :, ::FRAMES])
    assert not torch.equal(inputs.sample[:, :, 1::FRAMES], clean[:, :, 1::FRAMES])
    assert inputs.condition_mask is not None
    assert inputs.condition_mask[0, 0, :, 0, 0].tolist() == [1, 0, 0, 0] * VIEWS
    loss = flow.loss(inputs, torch.zeros(1, *SHAPE), clean, draw)
    free = flow.loss(
        replace(inputs, indicator=torch.zeros(1, 1, VIEWS * FRAMES, 1, 1)), torch.zeros(1, *SHAPE), clean, draw
    )
    assert 0 < loss.loss < free.loss
