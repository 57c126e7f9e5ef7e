import pytest
import torch

from nemo_cosmos.diffusion import (
    EDMPreconditioning,
    RectifiedFlowPreconditioning,
    clean_prediction,
    expand_to_latent,
    output_for_clean,
)

EDM_TABLE = [  # sigma, c_skip, c_out, c_in, c_noise, weight at sigma_data 0.5
    (0.0002, 0.99999984, 0.00019999998, 1.9999998, -2.1292983, 25000004),
    (0.01, 0.99960016, 0.0099980006, 1.9996001, -1.1512925, 10004),
    (0.5, 0.5, 0.35355339, 1.4142136, -0.1732868, 8),
    (1.0, 0.2, 0.4472136, 0.89442719, 0.0, 5),
    (4.0, 0.015384615, 0.49613894, 0.24806947, 0.34657359, 4.0625),
    (80.0, 3.9060974e-05, 0.49999023, 0.012499756, 1.0955067, 4.0001562),
]
FLOW_TABLE = [  # sigma, t, 1/t^2
    (0.002, 0.001996008, 251001),
    (0.01, 0.009900990, 10201),
    (1.0, 0.5, 4),
    (2.828427, 0.738796, 1.832107),
    (80.0, 0.987654, 1.025156),
    (200.0, 0.995025, 1.010025),
    (1e5, 0.99999, 1.00002),
]


@pytest.mark.parametrize("row", EDM_TABLE)
def test_edm_coefficients_match_the_published_table(row):
    p = EDMPreconditioning()
    sigma = torch.tensor(row[0], dtype=torch.float64)
    got = [f(sigma).item() for f in (p.c_skip, p.c_out, p.c_in, p.c_noise, p.loss_weight)]
    assert got == pytest.approx(row[1:], rel=2e-7, abs=1e-8)


@pytest.mark.parametrize("row", FLOW_TABLE)
def test_rectified_flow_time_and_weight_match_the_published_table(row):
    p = RectifiedFlowPreconditioning()
    sigma = torch.tensor(row[0], dtype=torch.float64)
    assert p.c_noise(sigma).item() == pytest.approx(row[1], rel=2e-6)
    assert p.loss_weight(sigma).item() == pytest.approx(row[2], rel=2e-6)
    assert p.c_in(sigma).item() == pytest.approx(1 - row[1], rel=1e-4)


def test_rectified_flow_output_is_the_velocity():
    p, x0, eps = RectifiedFlowPreconditioning(), torch.randn(2, 3, 1, 2, 2), torch.randn(2, 3, 1, 2, 2)
    sigma = torch.tensor([0.3, 7.0])
    state = x0 + expand_to_latent(sigma) * eps
    torch.testing.assert_close(clean_prediction(p, state, sigma, eps - x0), x0, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("p", [EDMPreconditioning(), RectifiedFlowPreconditioning()])
def test_output_for_clean_inverts_clean_prediction(p):
    state, clean = torch.randn(2, 4, 3, 2, 2).double(), torch.randn(2, 4, 3, 2, 2).double()
    sigma = torch.tensor([0.01, 40.0]).double()
    torch.testing.assert_close(clean_prediction(p, state, sigma, output_for_clean(p, state, sigma, clean)), clean)


def test_rectified_flow_refuses_another_sigma_data():
    with pytest.raises(ValueError, match="sigma_data"):
        RectifiedFlowPreconditioning(sigma_data=0.5)
