"""Deterministic samplers: RES-2ab (training-side Predict1, Predict2), EDM-Euler (released Predict1 command line)."""

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from nemo_cosmos.choices import Sampler as Sampler
from nemo_cosmos.errors import InputError


@dataclass(frozen=True)
class Prediction:
    """A denoiser's answer: the clean latent, and the state it was computed from (given frames may have replaced parts
    of the sampler's state)."""

    clean: Tensor
    state: Tensor


Denoiser = Callable[[Tensor, Tensor], Prediction]
"""(x (B, C, T, H, W) fp32, sigma scalar fp32 tensor) -> Prediction. Guidance and conditioning happen inside."""

Progress = Callable[[int, int], None]
"""Called with (evaluations done, evaluations in all)."""


def karras_sigmas(
    num: int, *, sigma_max: float, sigma_min: float, rho: float = 7.0, dtype: torch.dtype = torch.float64
) -> Tensor:
    """``num`` noise levels from sigma_max to sigma_min, evenly spaced in sigma^(1/rho) (arXiv 2206.00364, eq. 5).

    Raises InputError for num < 2 or an empty range.
    """
    if num < 2:
        raise InputError(f"a sampling schedule needs at least 2 noise levels, got {num}")
    if not 0 < sigma_min < sigma_max:
        raise InputError(f"a sampling schedule needs 0 < sigma_min < sigma_max, got {sigma_min} and {sigma_max}")
    ramp = torch.linspace(0, 1, num, dtype=dtype)
    low, high = sigma_min ** (1 / rho), sigma_max ** (1 / rho)
    return (high + ramp * (low - high)) ** rho


def res_2ab_sigmas(num_steps: int, *, sigma_max: float = 80.0, sigma_min: float = 0.002) -> Tensor:
    """(num_steps + 1,) fp64 levels of RES-2ab. Predict2 multiview uses 200 and 0.01."""
    return karras_sigmas(num_steps + 1, sigma_max=sigma_max, sigma_min=sigma_min)


def edm_euler_sigmas(num_steps: int, *, sigma_max: float = 80.0, sigma_min: float = 0.0002) -> Tensor:
    """(num_steps + 1,) fp32 levels of EDM-Euler: ``num_steps`` Karras levels, then 0."""
    levels = karras_sigmas(num_steps, sigma_max=sigma_max, sigma_min=sigma_min, dtype=torch.float32)
    return torch.cat([levels, torch.zeros(1)])


@torch.no_grad()
def sample_res_2ab(denoise: Denoiser, noise: Tensor, sigmas: Tensor, *, progress: Progress | None = None) -> Tensor:
    """Second-order multistep exponential integrator (RES, arXiv 2308.02157), state in fp64, no churn.

    Args:
        denoise: called with the state and level rounded to fp32.
        noise: (B, C, T, H, W) standard normal; the start is ``sigmas[0] * noise``.
        sigmas: (N + 1,) decreasing positive levels.

    Returns the fp32 clean prediction of one last evaluation at ``sigmas[-1]``: N + 1 evaluations in all.
    """
    levels = [float(s) for s in sigmas]
    x = levels[0] * noise.double()
    previous: tuple[Tensor, float] | None = None
    total = len(levels)
    for i, (s, t) in enumerate(itertools.pairwise(levels)):
        clean = denoise(x.float(), _level(s, noise)).clean.double()
        if previous is None:
            x = (1 - t / s) * clean + (t / s) * x
        else:
            keep, new, old = res_2ab_coefficients(previous[1], s, t)
            x = keep * x + new * clean + old * previous[0]
        previous = (clean, s)
        if progress:
            progress(i + 1, total)
    result = denoise(x.float(), _level(levels[-1], noise)).clean
    if progress:
        progress(total, total)
    return result.float()


def res_2ab_coefficients(before: float, now: float, after: float) -> tuple[float, float, float]:
    """Factors of (x, x0 at ``now``, x0 at ``before``) in the step of RES-2ab from level ``now`` to ``after``.

    They sum to 1. Raises ValueError when two of the levels are closer than 1e-6 in ln sigma.
    """
    step = math.log(now) - math.log(after)
    back = math.log(now) - math.log(before)
    if abs(step) < 1e-6 or abs(back) < 1e-6:
        raise ValueError(f"noise levels {before}, {now}, {after} are too close for a second-order step")
    ratio = back / step
    phi1 = math.expm1(-step) / -step
    phi2 = (phi1 - 1) / -step
    return math.exp(-step), step * (phi1 - phi2 / ratio), step * (phi2 / ratio)


@torch.no_grad()
def sample_edm_euler(
    denoise: Denoiser,
    noise: Tensor,
    sigmas: Tensor,
    *,
    state_dtype: torch.dtype = torch.float32,
    progress: Progress | None = None,
) -> Tensor:
    """First-order EDM sampler of the released Predict1 command line; the last step lands on the clean prediction.

    Args:
        denoise: called with the fp32 state and level.
        noise: (B, C, T, H, W) standard normal; the start is ``sqrt(sigmas[0]^2 + 1) * noise``.
        sigmas: (N + 1,) decreasing levels that end in 0: N evaluations.
        state_dtype: arithmetic between evaluations.

    Returns the fp32 clean latent.
    """
    levels = [float(s) for s in sigmas]
    x = math.sqrt(levels[0] ** 2 + 1) * noise.to(state_dtype)
    total = len(levels) - 1
    for i, (s, t) in enumerate(itertools.pairwise(levels)):
        prediction = denoise(x.float(), _level(s, noise))
        clean, state = prediction.clean.to(state_dtype), prediction.state.to(state_dtype)
        # Written on the clean side, so that t = 0 gives the prediction itself, without a rounding error of size sigma.
        x = clean + (state - clean) * (t / s)
        if progress:
            progress(i + 1, total)
    return x.float()


def _level(sigma: float, like: Tensor) -> Tensor:
    return torch.tensor(sigma, dtype=torch.float32, device=like.device)
