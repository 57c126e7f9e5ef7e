"""The denoising loss of both families and Predict1's learned log-variance weighting."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from nemo_cosmos.diffusion.preconditioning import Preconditioning, expand_to_latent


@dataclass(frozen=True)
class DenoisingLoss:
    """Scalars of one batch, each a mean over the counted elements.

    Attributes:
        loss: what is optimised, times ``loss_scale``.
        edm_loss: weighted squared error, without log-variance and scale.
        edm_mse: squared error of x0 without any weight.
        num_elements: how many elements were counted (a float scalar tensor). ``loss * num_elements`` summed over ranks
            and divided by the summed counts is the loss of the whole batch.
    """

    loss: Tensor
    edm_loss: Tensor
    edm_mse: Tensor
    num_elements: Tensor


class FourierFeatures(nn.Module):
    """cos(t * freqs + phases) * sqrt(2): (B,) -> (B, num_features) fp32, frequencies and phases fixed at random."""

    freqs: Tensor
    phases: Tensor

    def __init__(self, num_features: int = 128, *, generator: torch.Generator | None = None) -> None:
        super().__init__()
        self.register_buffer("freqs", 2 * math.pi * torch.randn(num_features, generator=generator))
        self.register_buffer("phases", 2 * math.pi * torch.rand(num_features, generator=generator))

    def forward(self, time: Tensor) -> Tensor:
        angles = time.float()[:, None] * self.freqs.float() + self.phases.float()
        return math.sqrt(2) * torch.cos(angles)


class LogVariance(nn.Sequential):
    """u(c_noise), the learned log-variance of the loss at a noise level: (B,) -> (B,).

    Its state dict (``0.freqs``, ``0.phases``, ``1.weight``) under the prefix ``logvar.`` is that of the released
    Predict1 files. A fresh head starts at u = 0, which leaves the EDM loss unchanged; the seed fixes the frequencies,
    so that every rank holds the same head.
    """

    def __init__(self, num_features: int = 128, *, seed: int = 0) -> None:
        generator = torch.Generator().manual_seed(seed)
        linear = nn.Linear(num_features, 1, bias=False)
        nn.init.zeros_(linear.weight)
        super().__init__(FourierFeatures(num_features, generator=generator), linear)

    def forward(self, input: Tensor) -> Tensor:
        features: Tensor = self[0](input)
        linear = self[1]
        assert isinstance(linear, nn.Linear)
        return linear(features.to(linear.weight.dtype)).squeeze(-1).float()


def denoising_loss(
    prediction: Tensor,
    clean: Tensor,
    sigma: Tensor,
    preconditioning: Preconditioning,
    *,
    log_variance: Tensor | None = None,
    mask: Tensor | None = None,
    sample_weight: Tensor | None = None,
    loss_scale: float = 1.0,
) -> DenoisingLoss:
    """Weighted squared error of the predicted clean latent, averaged over all counted elements; computed in fp32.

    Per element: ``edm = weight(sigma) * sample_weight * (clean - prediction)^2`` and, with a log-variance u,
    ``edm * exp(-u) + u`` (Predict1 trains with it, Predict2 without, at ``loss_scale`` 10).

    Args:
        prediction: (B, C, T, H, W) predicted x0, given frames already replaced unless they shall count as errors.
        clean: (B, C, T, H, W) true x0.
        sigma: (B,) noise level.
        log_variance: (B,) output of :class:`LogVariance`.
        mask: broadcastable to (B, C, T, H, W); elements with 0 are left out of numerator and denominator (padding that
            only exists to fill a batch or a split), other values weight an element in both.
        sample_weight: (B,) extra weight of a sample's error.
        loss_scale: factor on ``loss`` alone.
    """
    squared = (clean.float() - prediction.float()).square()
    weight = preconditioning.loss_weight(sigma.float())
    if sample_weight is not None:
        weight = weight * sample_weight
    edm = expand_to_latent(weight) * squared
    if log_variance is None:
        element = edm
    else:
        u = expand_to_latent(log_variance.float())
        element = edm * torch.exp(-u) + u
    if mask is None:
        count = torch.tensor(float(squared.numel()), device=squared.device)
        return DenoisingLoss(element.mean() * loss_scale, edm.mean(), squared.mean(), count)
    counted = mask.to(squared.dtype).expand_as(squared)
    count = counted.sum()

    def mean(values: Tensor) -> Tensor:
        # A rank's slice may hold padding alone: its means are then 0, with a count of 0.
        return (values * counted).sum() / count.clamp_min(1e-12)

    return DenoisingLoss(mean(element) * loss_scale, mean(edm), mean(squared), count)
