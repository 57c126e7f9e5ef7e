"""Classifier-free guidance in the convention of Cosmos."""

from torch import Tensor


def guide(conditional: Tensor, unconditional: Tensor, guidance: float) -> Tensor:
    """cond + g * (cond - uncond), on predicted clean latents.

    g = 0 is the conditional prediction alone; the Cosmos default g = 7 is scale 8 in the convention
    uncond + scale * (cond - uncond). Applied to x0 or to the network's output it is the same, as x0 is affine in it.
    """
    return conditional + guidance * (conditional - unconditional)
