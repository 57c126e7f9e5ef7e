"""Power-function EMA of weights (Karras et al. 2024, arXiv 2312.02696), as Cosmos trains with."""

from collections.abc import Iterable

import numpy
import torch
from torch import Tensor


def power_ema_exponent(rate: float) -> float:
    """Exponent gamma whose averaging profile has relative width ``rate`` (0.1 gives 6.937203938).

    The largest real root of g^3 + 7 g^2 + (16 - rate^-2) g + (12 - rate^-2) = 0. Raises ValueError outside (0, 0.28):
    above, the profile does not exist.
    """
    if not 0 < rate < 0.28:
        raise ValueError(f"EMA rate {rate} is outside (0, 0.28); Cosmos uses 0.1")
    inverse = rate**-2
    return float(numpy.roots([1.0, 7.0, 16.0 - inverse, 12.0 - inverse]).real.max())


def power_ema_beta(iteration: int, exponent: float) -> float:
    """Share of the old average kept after optimizer step ``iteration`` (0-based).

    0 at step 0, which copies the weights, then (1 - 1 / (iteration + 1)) ** (exponent + 1).
    """
    if iteration < 1:
        return 0.0
    return (1.0 - 1.0 / (iteration + 1)) ** (exponent + 1)


@torch.no_grad()
def update_ema(averages: Iterable[Tensor], parameters: Iterable[Tensor], beta: float) -> None:
    """average <- beta * average + (1 - beta) * parameter, in place, in the dtype of the averages (fp32)."""
    for average, parameter in zip(averages, parameters, strict=True):
        average.mul_(beta).add_(parameter.detach().to(average.dtype), alpha=1.0 - beta)
