"""How the network's output becomes a clean latent: EDM (Predict1) and rectified flow (Predict2).

Both families diffuse in variance-exploding form, ``x = x0 + sigma * eps``, and wrap the raw network F as

    x0(x, sigma) = c_skip(sigma) * x + c_out(sigma) * F(c_in(sigma) * x, c_noise(sigma))

so samplers, guidance and losses are written once, against :class:`Preconditioning`.
"""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor


class Preconditioning(Protocol):
    """The five functions of sigma that define a parameterisation; each is elementwise and keeps shape and dtype."""

    @property
    def sigma_data(self) -> float: ...

    def c_skip(self, sigma: Tensor) -> Tensor: ...

    def c_out(self, sigma: Tensor) -> Tensor: ...

    def c_in(self, sigma: Tensor) -> Tensor: ...

    def c_noise(self, sigma: Tensor) -> Tensor: ...

    def loss_weight(self, sigma: Tensor) -> Tensor: ...


@dataclass(frozen=True)
class EDMPreconditioning:
    """Karras et al. 2022 (arXiv 2206.00364), table 1. Cosmos-Predict1 uses sigma_data = 0.5.

    ``sigma_data`` is also the factor between normalised latents and diffused latents: x0 = sigma_data * latent.
    """

    sigma_data: float = 0.5

    def c_skip(self, sigma: Tensor) -> Tensor:
        return self.sigma_data**2 / (sigma**2 + self.sigma_data**2)

    def c_out(self, sigma: Tensor) -> Tensor:
        return sigma * self.sigma_data / torch.sqrt(sigma**2 + self.sigma_data**2)

    def c_in(self, sigma: Tensor) -> Tensor:
        return 1 / torch.sqrt(sigma**2 + self.sigma_data**2)

    def c_noise(self, sigma: Tensor) -> Tensor:
        return 0.25 * torch.log(sigma)

    def loss_weight(self, sigma: Tensor) -> Tensor:
        return (sigma**2 + self.sigma_data**2) / (sigma * self.sigma_data) ** 2


@dataclass(frozen=True)
class RectifiedFlowPreconditioning:
    """Rectified flow in EDM variables (Cosmos-Predict2): time t = sigma / (1 + sigma), F predicts eps - x0.

    ``c_in * x`` is the usual interpolation (1 - t) x0 + t eps. ``sigma_data`` is 1: latents are diffused as they are.
    """

    sigma_data: float = 1.0

    def __post_init__(self) -> None:
        if self.sigma_data != 1.0:
            raise ValueError(f"rectified flow is defined for sigma_data = 1, not {self.sigma_data}")

    def c_skip(self, sigma: Tensor) -> Tensor:
        return 1 / (1 + sigma)

    def c_out(self, sigma: Tensor) -> Tensor:
        return -sigma / (1 + sigma)

    def c_in(self, sigma: Tensor) -> Tensor:
        return 1 / (1 + sigma)

    def c_noise(self, sigma: Tensor) -> Tensor:
        return sigma / (1 + sigma)

    def loss_weight(self, sigma: Tensor) -> Tensor:
        return (1 + sigma) ** 2 / sigma**2


def expand_to_latent(value: Tensor, ndim: int = 5) -> Tensor:
    """Views per-sample (B,) or per-frame (B, T) values so that they broadcast over a (B, C, T, H, W) latent.

    A scalar tensor is returned as it is. Raises ValueError for other shapes.
    """
    if value.ndim == 0:
        return value
    if value.ndim == 1:
        return value.view(-1, *([1] * (ndim - 1)))
    if value.ndim == 2 and ndim == 5:
        return value.view(value.shape[0], 1, value.shape[1], 1, 1)
    raise ValueError(f"expected one value per sample (B,) or per frame (B, T), got shape {tuple(value.shape)}")


def clean_prediction(preconditioning: Preconditioning, state: Tensor, sigma: Tensor, output: Tensor) -> Tensor:
    """x0 = c_skip * x + c_out * F, for state x and network output F (B, C, T, H, W) and sigma (B,) or scalar."""
    skip = expand_to_latent(preconditioning.c_skip(sigma), state.ndim)
    out = expand_to_latent(preconditioning.c_out(sigma), state.ndim)
    return skip * state + out * output


def output_for_clean(preconditioning: Preconditioning, state: Tensor, sigma: Tensor, clean: Tensor) -> Tensor:
    """The network output that would make ``clean_prediction`` return ``clean``: F = (x0 - c_skip * x) / c_out."""
    skip = expand_to_latent(preconditioning.c_skip(sigma), state.ndim)
    out = expand_to_latent(preconditioning.c_out(sigma), state.ndim)
    return (clean - skip * state) / out
