import pytest
import torch

from nemo_cosmos.diffusion import (
    Prediction,
    architecture_invariant_noise,
    edm_euler_sigmas,
    guide,
    karras_sigmas,
    power_ema_beta,
    power_ema_exponent,
    res_2ab_sigmas,
    sample_edm_euler,
    sample_res_2ab,
    update_ema,
)
from nemo_cosmos.diffusion.samplers import res_2ab_coefficients
from nemo_cosmos.errors import InputError


def gaussian(x, sigma):
    """Ideal denoiser of data ~ N(0, 0.5^2)."""
    x = x.double()
    return Prediction(clean=x * 0.25 / (0.25 + float(sigma) ** 2), state=x)


@pytest.mark.parametrize("steps, value", [(5, 0.6578416487), (10, 0.6541299227), (35, 0.5096775080)])
def test_res_2ab_on_gaussian_data(steps, value):
    got = sample_res_2ab(gaussian, torch.ones(1, 1, 1, 1, 1), res_2ab_sigmas(steps))
    assert got.item() == pytest.approx(value, rel=2e-7)


@pytest.mark.parametrize("steps, value", [(35, 0.4568691579), (10, 0.3550186949)])
def test_edm_euler_on_gaussian_data(steps, value):
    start = torch.full((1, 1, 1, 1, 1), 80 / 6401**0.5, dtype=torch.float64)
    got = sample_edm_euler(gaussian, start, edm_euler_sigmas(steps), state_dtype=torch.float64)
    assert got.item() == pytest.approx(value, rel=1e-6)


def test_schedules():
    res = res_2ab_sigmas(35)
    assert res.dtype == torch.float64 and len(res) == 36
    assert res[:5].tolist() == pytest.approx([80, 68.3251, 58.1421, 49.2886, 41.6168], rel=2e-6)
    assert res[-3:].tolist() == pytest.approx([0.0072721, 0.00392871, 0.002], rel=1e-5)
    multiview = res_2ab_sigmas(35, sigma_max=200, sigma_min=0.01)
    assert multiview[:5].tolist() == pytest.approx([200, 171.6147, 146.7549, 125.0480, 106.1534], rel=1e-6)
    euler = edm_euler_sigmas(35)
    assert euler.dtype == torch.float32 and len(euler) == 36 and euler[-1] == 0
    assert euler[:4].tolist() == pytest.approx([80, 67.126, 56.0703, 46.6135], rel=2e-6)
    assert euler[-4:-1].tolist() == pytest.approx([0.00134248, 0.000552709, 0.0002], rel=1e-5)


@pytest.mark.parametrize(
    "k, coefficients",
    [
        (1, (0.8509625520, 0.2273240170, -0.0782865690)),
        (2, (0.8477275563, 0.2323502478, -0.0800778041)),
        (17, (0.7743525857, 0.3475722684, -0.1219248540)),
        (34, (0.5090726985, 0.7901429459, -0.2992156444)),
    ],
)
def test_res_2ab_coefficients(k, coefficients):
    levels = res_2ab_sigmas(35).tolist()
    got = res_2ab_coefficients(levels[k - 1], levels[k], levels[k + 1])
    assert got == pytest.approx(coefficients, rel=1e-8)
    assert sum(got) == pytest.approx(1, rel=1e-12)


@pytest.mark.parametrize(
    "top, bottom, after_1, after_2, after_10, after_35, final",
    [
        (
            80,
            0.002,
            [120.6027527, 27.4139137, 66.9457474, 153.1831512],
            [102.7039795, 23.4029636, 57.0434151, 130.4289551],
            [24.5947266, 5.8994055, 13.8301868, 31.1309319],
            [1.3959266, 0.7007689, 0.9956630, 1.6389656],
            [1.3959123, 0.7007657, 0.9956551, 1.6389474],
        ),
        (
            200,
            0.01,
            [302.8085327, 68.7438736, 168.0369263, 384.6414795],
            [259.0171204, 58.8582916, 143.7680817, 328.9960327],
            [64.4801025, 14.9430265, 35.9572487, 81.7990952],
            [1.4020560, 0.7036324, 0.9999121, 1.6462363],
            [1.4016954, 0.7035509, 0.9997123, 1.6457781],
        ),
    ],
)
def test_res_2ab_trajectory(top, bottom, after_1, after_2, after_10, after_35, final):
    seen = []

    def denoise(x, sigma):
        assert x.dtype == torch.float32 and sigma.dtype == torch.float32
        seen.append(x)
        return Prediction(clean=(0.25 * x + 0.5 * sigma**2) / (0.25 + sigma**2), state=x)

    noise = architecture_invariant_noise((4,), 0)
    got = sample_res_2ab(denoise, noise, res_2ab_sigmas(35, sigma_max=top, sigma_min=bottom))
    assert len(seen) == 36
    for index, expected in ((1, after_1), (2, after_2), (10, after_10), (35, after_35)):
        assert seen[index].tolist() == pytest.approx(expected, rel=2e-6)
    assert got.tolist() == pytest.approx(final, rel=2e-6)


def test_edm_euler_starts_from_the_denoisers_state():
    """Where the denoiser replaced part of the state, the step moves from there, and the last one lands on clean."""

    def denoise(x, sigma):
        return Prediction(clean=torch.full_like(x, 3.0), state=torch.full_like(x, 5.0))

    seen = []
    noise = torch.ones(1, 1, 1, 1, 1)
    got = sample_edm_euler(
        lambda x, s: (seen.append(x.item()), denoise(x, s))[1], noise, torch.tensor([4.0, 1.0, 0.0])
    )
    assert seen == pytest.approx([17**0.5, 3 + 2 / 4])
    assert got.item() == 3.0


def test_progress_counts_evaluations():
    calls = []
    sample_res_2ab(
        gaussian, torch.ones(1), res_2ab_sigmas(3), progress=lambda done, total: calls.append((done, total))
    )
    assert calls == [(1, 4), (2, 4), (3, 4), (4, 4)]


@pytest.mark.parametrize("num", [0, 1])
def test_too_short_schedules_are_a_users_mistake(num):
    with pytest.raises(InputError, match="at least 2"):
        karras_sigmas(num, sigma_max=80, sigma_min=0.002)


def test_guidance_convention():
    cond, uncond = torch.tensor([2.0]), torch.tensor([1.5])
    assert guide(cond, uncond, 0.0).item() == 2.0
    assert guide(cond, uncond, 7.0).item() == pytest.approx(1.5 + 8 * 0.5)


@pytest.mark.parametrize("rate, exponent", [(0.1, 6.937203937601809), (0.05, 16.9721986023), (0.025, 36.9868397124)])
def test_ema_exponent(rate, exponent):
    assert power_ema_exponent(rate) == pytest.approx(exponent, rel=1e-11)


def test_ema_betas():
    gamma = power_ema_exponent(0.1)
    table = {
        0: 0,
        1: 0.00408003,
        2: 0.04002467,
        3: 0.10193792,
        10: 0.46930785,
        99: 0.92332724,
        499: 0.98423528,
        999: 0.99209027,
        1999: 0.99603827,
        9999: 0.99920655,
    }
    assert [power_ema_beta(i, gamma) for i in table] == pytest.approx(list(table.values()), abs=5e-9)


def test_ema_sequence():
    gamma, average, parameter = power_ema_exponent(0.1), torch.zeros(1), torch.zeros(1, dtype=torch.bfloat16)
    seen = []
    for step in range(5):
        parameter.fill_(step + 1)
        update_ema([average], [parameter], power_ema_beta(step, gamma))
        seen.append(average.item())
    assert seen == pytest.approx([1, 1.99591997, 2.95981203, 3.89396540, 4.81181969], rel=1e-6)


def test_ema_rate_out_of_range():
    with pytest.raises(ValueError, match="rate"):
        power_ema_exponent(0.5)
