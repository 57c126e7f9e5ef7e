import pytest
import torch

from nemo_cosmos.data.network_inputs import NetworkInputs
from nemo_cosmos.diffusion import EDMPreconditioning, architecture_invariant_noise
from nemo_cosmos.inference.config import GenerationConfig
from nemo_cosmos.inference.sampling import GuidedDenoiser, SamplingInputs, sample_latent, sampling_objective

SHAPE = (16, 4, 4, 6)


def inputs(condition=None, text=0.0, negative=0.0, seed=3):
    return SamplingInputs(
        shape=SHAPE,
        network=NetworkInputs(text=torch.full((1, 5, 8), text), fps=torch.tensor([10.0])),
        negative_text=torch.full((1, 5, 8), negative),
        seed=seed,
        condition=condition,
    )


def target():
    return torch.randn(1, *SHAPE, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("sampler", ["edm-euler", "res-2ab"])
@pytest.mark.parametrize("preset", ["tiny-text2world", "tiny-video2world", "tiny-predict2-video2world"])
def test_reaches_the_latent_that_the_network_knows(fakes, preset, sampler):
    dit = fakes.dit(preset)
    config = GenerationConfig(sampler=sampler, num_steps=6, guidance=0)
    got = sample_latent(fakes.network(dit, target()), dit, inputs(), config)
    torch.testing.assert_close(got, target(), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("preset, tolerance", [("tiny-video2world", 5e-3), ("tiny-predict2-video2world", 1e-5)])
def test_given_frames_stay_and_the_others_are_generated(fakes, preset, tolerance):
    dit = fakes.dit(preset)
    given = torch.randn(1, 16, 2, 4, 6)
    network = fakes.network(dit, torch.cat([given, target()[:, :, 2:]], dim=2))
    got = sample_latent(network, dit, inputs(given), GenerationConfig(num_steps=12, guidance=2.0))
    torch.testing.assert_close(got[:, :, :2], given, atol=tolerance, rtol=0)
    torch.testing.assert_close(got[:, :, 2:], target()[:, :, 2:], atol=1e-3, rtol=1e-3)
    mask = network.calls[0]["condition_mask"]
    assert mask.shape == (1, 1, *SHAPE[1:])
    assert mask[0, 0, :, 0, 0].tolist() == [1, 1, 0, 0]


def test_guidance_extrapolates_from_the_negative_text(fakes):
    dit = fakes.dit("tiny-text2world")
    got = sample_latent(
        fakes.network(dit, target()),
        dit,
        inputs(text=0.02, negative=-0.01),
        GenerationConfig(num_steps=6, guidance=3.0),
    )
    expected = target() + (0.02 + 3 * 0.03) / 0.5
    torch.testing.assert_close(got, expected, atol=1e-4, rtol=1e-4)


def test_one_batch_of_two_branches_gives_the_same(fakes):
    dit, given = fakes.dit(), torch.randn(1, 16, 1, 4, 6)
    results, calls = [], []
    for batched in (False, True):
        network = fakes.network(dit, target())
        config = GenerationConfig(num_steps=5, guidance=1.5, batched_guidance=batched)
        results.append(sample_latent(network, dit, inputs(given, 0.3, -0.2), config))
        calls.append(network.calls)
    assert torch.equal(*results)
    assert (len(calls[0]), len(calls[1])) == (10, 5)
    assert calls[1][0]["fps"].tolist() == [10.0, 10.0]


def test_without_guidance_only_the_prompt_is_evaluated(fakes):
    network = fakes.network(fakes.dit("tiny-text2world"), target())
    sample_latent(network, network.dit_config, inputs(), GenerationConfig(num_steps=5, guidance=0))
    assert len(network.calls) == 5
    assert network.calls[0]["condition_mask"] is None


def test_the_seed_decides_the_noise(fakes):
    dit = fakes.dit("tiny-text2world")
    starts = []
    for seed in (3, 3, 4):
        network = fakes.network(dit, target())
        sample_latent(network, dit, inputs(seed=seed), GenerationConfig(num_steps=2, guidance=0))
        starts.append(network.calls[0]["x"])
    assert torch.equal(starts[0], starts[1]) and not torch.equal(starts[0], starts[2])
    expected = architecture_invariant_noise((1, *SHAPE), 3) * 6401**0.5 / (80**2 + 0.25) ** 0.5
    torch.testing.assert_close(starts[0], expected)


def denoiser(fakes, given):
    dit = fakes.dit()
    noise = architecture_invariant_noise((1, *SHAPE), 3)
    return GuidedDenoiser(
        fakes.network(dit), dit, sampling_objective(dit), inputs(given), GenerationConfig(), noise
    ), noise


def test_given_frames_reach_the_network_with_little_noise(fakes):
    given = torch.randn(1, 16, 1, 4, 6)
    guided, noise = denoiser(fakes, given)
    got = guided.network_input(torch.randn(1, *SHAPE), torch.tensor([5.0]))
    level = torch.tensor([0.001])
    expected = EDMPreconditioning().c_in(level) * (0.5 * given[:, :, 0] + 0.001 * noise[:, :, 0])
    torch.testing.assert_close(got.sample[:, :, 0], expected)


def test_below_their_own_noise_given_frames_are_denoised_with_the_rest(fakes):
    guided, _ = denoiser(fakes, torch.randn(1, 16, 1, 4, 6))
    x = torch.randn(1, *SHAPE)
    got = guided.network_input(x, torch.tensor([0.0005]))
    assert torch.equal(got.state, x) and got.indicator is None
    assert got.condition_mask[0, 0, :, 0, 0].tolist() == [1, 0, 0, 0]


def test_a_video2world_network_runs_from_text_with_an_empty_mask(fakes):
    network = fakes.network(fakes.dit(), target())
    sample_latent(network, network.dit_config, inputs(), GenerationConfig(num_steps=3))
    assert network.calls[0]["condition_mask"].abs().max() == 0


def test_predict2_times_are_per_frame(fakes):
    network = fakes.network(fakes.dit("tiny-predict2-video2world"), target())
    given = torch.randn(1, 16, 1, 4, 6)
    sample_latent(network, network.dit_config, inputs(given), GenerationConfig(num_steps=3, guidance=0))
    assert len(network.calls) == 4
    times = network.calls[0]["timesteps"]
    assert times.shape == (1, 4)
    torch.testing.assert_close(times[0], torch.tensor([9.999e-5] + [80 / 81] * 3), rtol=1e-5, atol=0)
    assert torch.equal(network.calls[0]["x"][:, :, 0], given[:, :, 0])
