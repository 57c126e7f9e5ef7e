import math

import pytest
import torch

from nemo_cosmos.diffusion import (
    ConditionFrames,
    SigmaDistribution,
    architecture_invariant_noise,
    draw_training_noise,
    sample_generator,
)

SHAPE = (4, 3, 4, 5)
OPTIONS = {
    "seed": 7,
    "sigma": SigmaDistribution(multiplier=2.0),
    "condition_frames": ConditionFrames(),
    "augment_sigma": SigmaDistribution(-3.0, 2.0),
}


def test_draws_depend_on_the_position_alone():
    whole = draw_training_noise(torch.arange(6), SHAPE, **OPTIONS)
    for size in (1, 2, 3):
        for start in range(0, 6, size):
            part = draw_training_noise(torch.arange(start, start + size), SHAPE, **OPTIONS)
            for name, value in vars(part).items():
                assert torch.equal(value, getattr(whole, name)[start : start + size]), name


def test_options_do_not_shift_other_draws():
    plain = draw_training_noise([3, 9], SHAPE, seed=7, sigma=SigmaDistribution(multiplier=2.0), text_drop_rate=0.9)
    full = draw_training_noise([3, 9], SHAPE, **OPTIONS)
    assert torch.equal(plain.sigma, full.sigma)
    assert torch.equal(plain.epsilon, full.epsilon)
    assert plain.indicator is None and plain.augment_noise is None


def test_positions_seeds_and_streams_are_independent():
    draws = [
        torch.randn(50_000, generator=sample_generator(seed, position, stream=stream))
        for seed, position, stream in [(0, 0, "a"), (0, 1, "a"), (1, 0, "a"), (0, 0, "b"), (0, 10, "a"), (1, 10, "a")]
    ]
    correlation = torch.corrcoef(torch.stack(draws)) - torch.eye(len(draws))
    assert correlation.abs().max() < 0.025


def test_sigma_is_log_normal_with_the_multiplier():
    draw = draw_training_noise(range(4000), (1, 1, 1, 1), seed=0, sigma=SigmaDistribution(0.5, 0.8, multiplier=4.0))
    logs = (draw.sigma / 4).log()
    assert logs.mean().item() == pytest.approx(0.5, abs=0.04)
    assert logs.std().item() == pytest.approx(0.8, abs=0.04)


@pytest.mark.parametrize(
    ("uniform", "sigma"),
    [(0.5488135, 1.1305048), (0.71518937, 1.7658097), (0.60276338, 1.2975869), (0.54488318, 1.1193452)],
)
def test_quantile_matches_published_draws(uniform, sigma):
    assert SigmaDistribution().quantile(uniform) == pytest.approx(sigma, rel=1e-6)
    assert SigmaDistribution(multiplier=math.sqrt(24)).quantile(uniform) == pytest.approx(sigma * 24**0.5, rel=1e-6)


def test_high_sigma_share():
    distribution = SigmaDistribution(high_sigma_probability=0.05)
    draw = draw_training_noise(range(4000), (1, 1, 1, 1), seed=0, sigma=distribution)
    high = draw.sigma[draw.sigma >= 200]
    assert len(high) / 4000 == pytest.approx(0.05, abs=0.012)
    assert high.max() <= 100_000
    middle = math.exp((math.log(200) + math.log(100_000)) / 2)
    assert (high > middle).float().mean().item() == pytest.approx(0.5, abs=0.12)
    base = draw_training_noise(range(4000), (1, 1, 1, 1), seed=0, sigma=SigmaDistribution())
    assert torch.equal(draw.sigma[draw.sigma < 200], base.sigma[draw.sigma < 200])


def test_condition_frame_counts_are_uniform_and_per_sample():
    draw = draw_training_noise(
        range(3000),
        (1, 4, 1, 1),
        seed=0,
        sigma=SigmaDistribution(),
        condition_frames=ConditionFrames(minimum=0, maximum=2),
    )
    shares = torch.bincount(draw.num_condition_frames, minlength=4) / 3000
    torch.testing.assert_close(shares, torch.tensor([1 / 3, 1 / 3, 1 / 3, 0.0]), atol=0.03, rtol=0)
    assert torch.equal(draw.indicator.sum(1).long(), draw.num_condition_frames)


def test_condition_frames_of_every_view():
    options = ConditionFrames(minimum=1, maximum=1, num_views=2)
    draw = draw_training_noise([0], (1, 6, 1, 1), seed=0, sigma=SigmaDistribution(), condition_frames=options)
    assert draw.indicator.tolist() == [[1, 0, 0, 1, 0, 0]]
    with pytest.raises(ValueError, match="views"):
        draw_training_noise([0], (1, 5, 1, 1), seed=0, sigma=SigmaDistribution(), condition_frames=options)


def test_random_location_marks_each_frame_at_the_rate():
    options = ConditionFrames(location="random", rate=0.25)
    draw = draw_training_noise(range(500), (1, 8, 1, 1), seed=0, sigma=SigmaDistribution(), condition_frames=options)
    assert draw.indicator.mean().item() == pytest.approx(0.25, abs=0.03)
    assert len({tuple(row) for row in draw.indicator.tolist()}) > 50


def test_drop_rates():
    draw = draw_training_noise(
        range(3000),
        (1, 1, 1, 1),
        seed=1,
        sigma=SigmaDistribution(),
        text_drop_rate=0.2,
        condition_frames=ConditionFrames(drop_rate=0.4),
    )
    assert draw.drop_text.float().mean().item() == pytest.approx(0.2, abs=0.03)
    assert draw.drop_condition.float().mean().item() == pytest.approx(0.4, abs=0.03)


@pytest.mark.parametrize(
    "seed, start",
    [
        (1, [1.6243454, -0.61175638, -0.52817178, -1.0729686, 0.86540765, -2.3015387]),
        (0, [1.76405235, 0.40015721, 0.97873798, 2.2408932]),
    ],
)
def test_architecture_invariant_noise(seed, start):
    noise = architecture_invariant_noise((1, 2, 3), seed)
    assert noise.dtype == torch.float32
    assert noise.flatten()[: len(start)].tolist() == pytest.approx(start, rel=1e-6)


@pytest.mark.parametrize("bad", [{"p_std": 0.0}, {"multiplier": -1.0}, {"high_sigma_probability": 2.0}])
def test_bad_distributions_are_refused(bad):
    with pytest.raises(ValueError, match="noise levels"):
        SigmaDistribution(**bad)
