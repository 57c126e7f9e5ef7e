"""3-D patch discriminator: hinge loss, feature matching, adaptive weight (Esser et al. 2021, arXiv:2012.09841)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class PatchDiscriminator3D(nn.Module):
    """Scores overlapping space-time patches of (B, 3, T, H, W) video; also gives its features.

    Args:
        channels: width of the first layer, doubled per layer up to eight times.
        num_layers: layers that halve height and width (the first keeps the frames, the others halve them too).
    """

    def __init__(self, channels: int = 64, num_layers: int = 3) -> None:
        super().__init__()
        width = channels
        blocks: list[nn.Module] = [
            nn.Sequential(
                nn.Conv3d(3, width, (3, 4, 4), stride=(1, 2, 2), padding=(1, 1, 1)), nn.LeakyReLU(0.2, inplace=False)
            )
        ]
        for layer in range(1, num_layers):
            out = channels * min(2**layer, 8)
            blocks.append(
                nn.Sequential(
                    nn.Conv3d(width, out, (3, 4, 4), stride=2, padding=(1, 1, 1)),
                    nn.GroupNorm(1, out),
                    nn.LeakyReLU(0.2, inplace=False),
                )
            )
            width = out
        self.blocks = nn.ModuleList(blocks)
        self.head = nn.Conv3d(width, 1, 3, padding=1)

    def forward(self, video: Tensor) -> tuple[Tensor, list[Tensor]]:
        features: list[Tensor] = []
        x = video
        for block in self.blocks:
            x = block(x)
            features.append(x)
        return self.head(x), features


def discriminator_loss(real: Tensor, fake: Tensor) -> Tensor:
    """Hinge loss on patch scores: half of mean relu(1 − D(x)) + mean relu(1 + D(x̂))."""
    return 0.5 * (F.relu(1.0 - real.float()).mean() + F.relu(1.0 + fake.float()).mean())


def generator_loss(discriminator: nn.Module, video: Tensor, reconstruction: Tensor, matching: float) -> Tensor:
    """−mean D(x̂) + matching · mean over layers of mean |f(x) − f(x̂)|; the discriminator's weights get no gradient."""
    flags = [parameter.requires_grad for parameter in discriminator.parameters()]
    discriminator.requires_grad_(False)
    try:
        score, fake = discriminator(reconstruction)
        loss = -score.float().mean()
        if matching > 0:
            with torch.no_grad():
                _, real = discriminator(video)
            distances = [(a.float() - b.float()).abs().mean() for a, b in zip(real, fake, strict=True)]
            loss = loss + matching * torch.stack(distances).mean()
    finally:
        for parameter, flag in zip(discriminator.parameters(), flags, strict=True):
            parameter.requires_grad_(flag)
    return loss


def adaptive_weight(reconstruction_loss: Tensor, adversarial_loss: Tensor, last_layer: Tensor) -> Tensor:
    """Ratio of the two gradients' norms at the decoder's last layer, in [0, 1e4], without gradient."""
    (first,) = torch.autograd.grad(reconstruction_loss, last_layer, retain_graph=True)
    (second,) = torch.autograd.grad(adversarial_loss, last_layer, retain_graph=True)
    return (first.float().norm() / (second.float().norm() + 1e-4)).clamp(0.0, 1e4).detach()
