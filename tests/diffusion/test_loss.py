import pytest
import torch

from nemo_cosmos.diffusion import EDMPreconditioning, LogVariance, RectifiedFlowPreconditioning, denoising_loss
from nemo_cosmos.diffusion.preconditioning import clean_prediction, expand_to_latent

SIGMA = torch.tensor([0.5, 4.0])


def pair(frames=2):
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(2, 3, frames, 4, 4, generator=generator) for _ in range(2)]


def test_weighted_mean_without_log_variance():
    prediction, clean = pair()
    loss = denoising_loss(prediction, clean, SIGMA, EDMPreconditioning(), loss_scale=10.0)
    squared = (prediction - clean) ** 2
    expected = (8 * squared[0].mean() + 4.0625 * squared[1].mean()) / 2
    torch.testing.assert_close(loss.edm_loss, expected)
    torch.testing.assert_close(loss.loss, 10 * expected)
    torch.testing.assert_close(loss.edm_mse, squared.mean())


def test_log_variance_term():
    prediction, clean = pair()
    u = torch.tensor([0.3, -1.0])
    loss = denoising_loss(prediction, clean, SIGMA, EDMPreconditioning(), log_variance=u)
    per_sample = ((prediction - clean) ** 2).mean((1, 2, 3, 4)) * torch.tensor([8, 4.0625])
    torch.testing.assert_close(loss.loss, (per_sample * torch.exp(-u) + u).mean())
    torch.testing.assert_close(loss.edm_loss, per_sample.mean())


def test_masked_elements_leave_numerator_and_denominator():
    prediction, clean = pair(frames=3)
    mask = torch.tensor([1.0, 1.0, 0.0]).view(1, 1, 3, 1, 1)
    masked = denoising_loss(prediction, clean, SIGMA, EDMPreconditioning(), mask=mask, log_variance=torch.ones(2))
    cut = denoising_loss(
        prediction[:, :, :2], clean[:, :, :2], SIGMA, EDMPreconditioning(), log_variance=torch.ones(2)
    )
    for name in ("loss", "edm_loss", "edm_mse", "num_elements"):
        torch.testing.assert_close(getattr(masked, name), getattr(cut, name))


def test_slices_add_up_to_the_whole():
    prediction, clean = pair(frames=5)
    whole = denoising_loss(prediction, clean, SIGMA, EDMPreconditioning())
    parts = [
        denoising_loss(prediction[:, :, s], clean[:, :, s], SIGMA, EDMPreconditioning())
        for s in (slice(0, 3), slice(3, 5))
    ]
    total = sum(p.loss * p.num_elements for p in parts) / sum(p.num_elements for p in parts)
    torch.testing.assert_close(total, whole.loss)


def test_a_slice_of_padding_alone_counts_nothing():
    prediction, clean = pair()
    loss = denoising_loss(prediction, clean, SIGMA, EDMPreconditioning(), mask=torch.zeros(1, 1, 1, 1, 1))
    assert loss.loss.item() == 0 and loss.num_elements.item() == 0


def test_rectified_flow_loss_is_the_velocity_error():
    p, (output, clean) = RectifiedFlowPreconditioning(), pair()
    epsilon = torch.randn_like(clean)
    state = clean + expand_to_latent(SIGMA) * epsilon
    loss = denoising_loss(clean_prediction(p, state, SIGMA, output), clean, SIGMA, p)
    torch.testing.assert_close(loss.loss, ((output - (epsilon - clean)) ** 2).mean())


def test_sample_weight():
    prediction, clean = pair()
    loss = denoising_loss(prediction, clean, SIGMA, EDMPreconditioning(), sample_weight=torch.tensor([0.0, 2.0]))
    torch.testing.assert_close(loss.edm_loss, 4.0625 * ((prediction - clean) ** 2)[1].mean())


def test_log_variance_head_has_the_released_keys_and_starts_at_zero():
    head = LogVariance()
    assert {k: tuple(v.shape) for k, v in head.state_dict().items()} == {
        "0.freqs": (128,),
        "0.phases": (128,),
        "1.weight": (1, 128),
    }
    assert head(torch.tensor([0.1, -2.0])).tolist() == [0.0, 0.0]
    assert torch.equal(head[0].freqs, LogVariance()[0].freqs)


def test_log_variance_head_formula():
    head = LogVariance(4)
    weight = torch.tensor([[0.5, -1.0, 2.0, 0.25]])
    head[1].weight.data.copy_(weight)
    t = torch.tensor([0.7])
    features = 2**0.5 * torch.cos(t * head[0].freqs + head[0].phases)
    assert head(t).item() == pytest.approx((features @ weight[0]).item(), rel=1e-6)
