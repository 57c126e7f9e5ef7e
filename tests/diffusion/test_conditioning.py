import torch

from nemo_cosmos.diffusion import (
    EDMPreconditioning,
    RectifiedFlowPreconditioning,
    augmented_input,
    denoised,
    expand_to_latent,
    frame_indicator,
    frame_replace_input,
    plain_input,
)

EDM, FLOW = EDMPreconditioning(), RectifiedFlowPreconditioning()
SIGMA, AUGMENT = torch.tensor([2.0, 0.3]), torch.tensor([0.05, 1.5])
INDICATOR = torch.tensor([[1.0, 0.0, 0.0], [1.0, 1.0, 0.0]])


def tensors():
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(2, 4, 3, 2, 2, generator=generator) for _ in range(4)]


def test_indicator_of_views():
    got = frame_indicator(torch.tensor([0, 1, 2]), 6, num_views=2)
    assert got.tolist() == [[0] * 6, [1, 0, 0, 1, 0, 0], [1, 1, 0, 1, 1, 0]]


def test_augmented_frames_reach_the_network_at_their_own_noise_level():
    clean, noise, epsilon, _ = tensors()
    noisy = clean + expand_to_latent(SIGMA) * epsilon
    got = augmented_input(EDM, noisy, SIGMA, clean, INDICATOR, augment_sigma=AUGMENT, augment_noise=noise)
    augmented = clean + expand_to_latent(AUGMENT) * noise
    torch.testing.assert_close(got.sample[0, :, 0], EDM.c_in(AUGMENT)[0] * augmented[0, :, 0])
    torch.testing.assert_close(got.sample[1, :, :2], EDM.c_in(AUGMENT)[1] * augmented[1, :, :2])
    torch.testing.assert_close(got.sample[0, :, 1:], EDM.c_in(SIGMA)[0] * noisy[0, :, 1:])
    torch.testing.assert_close(got.timesteps, EDM.c_noise(SIGMA))
    assert torch.equal(got.condition_mask, INDICATOR[:, None, :, None, None].expand(2, 1, 3, 2, 2))


def test_given_frames_carry_no_error():
    clean, noise, epsilon, output = tensors()
    noisy = clean + expand_to_latent(SIGMA) * epsilon
    inputs = augmented_input(EDM, noisy, SIGMA, clean, INDICATOR, augment_sigma=AUGMENT, augment_noise=noise)
    x0 = denoised(EDM, inputs, output)
    assert torch.equal(x0[1, :, :2], clean[1, :, :2])
    free = denoised(EDM, inputs, output, replace_given=False)
    torch.testing.assert_close(x0[0, :, 1:], free[0, :, 1:])
    expected = EDM.c_skip(SIGMA)[0] * noisy[0, :, 1:] + EDM.c_out(SIGMA)[0] * output[0, :, 1:]
    torch.testing.assert_close(free[0, :, 1:], expected)
    assert not torch.allclose(free[0, :, 0], clean[0, :, 0])


def test_dropped_condition_feeds_zeros_with_a_blank_mask_or_stays_noisy():
    clean, noise, epsilon, _ = tensors()
    noisy = clean + expand_to_latent(SIGMA) * epsilon
    drop = torch.tensor([True, False])
    args = (EDM, noisy, SIGMA, clean, INDICATOR)
    options = {"augment_sigma": AUGMENT, "augment_noise": noise}
    kept = augmented_input(*args, **options)
    zeros = augmented_input(*args, **options, drop_condition=drop)
    assert zeros.sample[0, :, 0].abs().max() == 0 and zeros.condition_mask[0].abs().max() == 0
    assert torch.equal(zeros.sample[1], kept.sample[1]) and torch.equal(
        zeros.condition_mask[1], kept.condition_mask[1]
    )
    left = augmented_input(*args, **options, drop_condition=drop, unconditional_fill="noisy")
    torch.testing.assert_close(left.state[0], noisy[0])


def test_normalised_condition():
    clean, _, noisy, _ = tensors()
    zero = torch.zeros_like(AUGMENT)
    got = augmented_input(
        EDM, noisy, SIGMA, clean * 5 + 3, INDICATOR, augment_sigma=zero, augment_noise=noisy, normalize_condition=True
    )
    frame = got.sample[0, :, 0] / EDM.c_in(zero)[0]
    torch.testing.assert_close(frame.mean((-2, -1)), torch.zeros(4), atol=1e-5, rtol=0)
    torch.testing.assert_close(frame.std((-2, -1)), torch.ones(4), atol=1e-4, rtol=0)


def test_frame_replace_feeds_clean_frames_with_their_own_time():
    clean, _, epsilon, output = tensors()
    noisy = clean + expand_to_latent(SIGMA) * epsilon
    got = frame_replace_input(FLOW, noisy, SIGMA, clean, INDICATOR)
    assert torch.equal(got.sample[0, :, 0], clean[0, :, 0])
    torch.testing.assert_close(got.sample[0, :, 1:], noisy[0, :, 1:] / (1 + SIGMA[0]))
    t = (SIGMA / (1 + SIGMA)).tolist()
    expected = torch.tensor([[9.999e-5, t[0], t[0]], [9.999e-5, 9.999e-5, t[1]]])
    torch.testing.assert_close(got.timesteps, expected, rtol=1e-6, atol=0)
    x0 = denoised(FLOW, got, output)
    assert torch.equal(x0[0, :, 0], clean[0, :, 0])
    torch.testing.assert_close(x0[0, :, 1:], (1 - t[0]) * noisy[0, :, 1:] - t[0] * output[0, :, 1:])


def test_frame_replace_drop_blanks_frames_and_keeps_the_mask():
    clean, _, noisy, _ = tensors()
    got = frame_replace_input(FLOW, noisy, SIGMA, clean, INDICATOR, drop_condition=torch.tensor([True, False]))
    assert got.sample[0, :, 0].abs().max() == 0
    assert got.condition_mask[0, 0, 0].min() == 1
    assert torch.equal(got.sample[1, :, :2], clean[1, :, :2])


def test_plain_input():
    _, _, noisy, output = tensors()
    got = plain_input(EDM, noisy, SIGMA)
    torch.testing.assert_close(got.sample, noisy * expand_to_latent(EDM.c_in(SIGMA)))
    assert got.condition_mask is None and got.timesteps.shape == (2,)
    x0 = denoised(EDM, got, output)
    assert torch.equal(x0, denoised(EDM, got, output, replace_given=False))
    flow = plain_input(FLOW, noisy, SIGMA, per_frame_time=True, with_mask=True)
    assert flow.timesteps.shape == (2, 3) and flow.condition_mask.shape == (2, 1, 3, 2, 2)
    assert flow.condition_mask.abs().max() == 0
