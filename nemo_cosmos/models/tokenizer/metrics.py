"""Reconstruction quality: PSNR, SSIM, LPIPS, code usage and the Fréchet distance behind rFVD.

Images and videos come in [−1, 1]; PSNR and SSIM are taken on their 8-bit values, as a viewer sees them.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from nemo_cosmos.pixels import to_levels


def psnr(video: Tensor, reconstruction: Tensor) -> Tensor:
    """Mean over clips and frames of 10·log10(255²/mse), dB, of (B, 3, T, H, W); about 117 dB for equal frames."""
    difference = to_levels(video) - to_levels(reconstruction)
    mse = difference.square().mean(dim=(1, 3, 4))
    return (10.0 * torch.log10(255.0**2 / (mse + torch.finfo(torch.float32).eps))).mean()


def ssim(video: Tensor, reconstruction: Tensor, window: int = 7) -> Tensor:
    """Mean structural similarity per frame and channel (Wang et al. 2004), uniform window, sample covariance.

    Same definition as scikit-image's ``structural_similarity`` with ``data_range=255``. Frames must be
    at least ``window`` pixels high and wide.
    """
    x = to_levels(video).transpose(1, 2).flatten(0, 2).unsqueeze(1).double()
    y = to_levels(reconstruction).transpose(1, 2).flatten(0, 2).unsqueeze(1).double()
    scale = window**2 / (window**2 - 1)
    mean_x, mean_y = F.avg_pool2d(x, window, 1), F.avg_pool2d(y, window, 1)
    var_x = scale * (F.avg_pool2d(x * x, window, 1) - mean_x * mean_x)
    var_y = scale * (F.avg_pool2d(y * y, window, 1) - mean_y * mean_y)
    covariance = scale * (F.avg_pool2d(x * y, window, 1) - mean_x * mean_y)
    c1, c2 = (0.01 * 255.0) ** 2, (0.03 * 255.0) ** 2
    numerator = (2 * mean_x * mean_y + c1) * (2 * covariance + c2)
    return (numerator / ((mean_x.square() + mean_y.square() + c1) * (var_x + var_y + c2))).mean().float()


def code_usage(indices: Tensor, codebook_size: int) -> tuple[float, float]:
    """(share of the codebook that occurs, perplexity exp(−Σ p·ln p)) of integer indices of any shape."""
    counts = torch.bincount(indices.flatten().long().cpu(), minlength=codebook_size).double()
    p = counts / counts.sum()
    entropy = -(p * torch.log(p + torch.finfo(torch.float32).eps)).sum()
    return float((counts > 0).double().mean()), float(entropy.exp())


def lpips(first: list[Tensor], second: list[Tensor], heads: list[Tensor]) -> Tensor:
    """Learned perceptual distance (Zhang et al. 2018) of two lists of (N, C, h, w) VGG features, mean over images.

    Args:
        heads: one non-negative weight per channel for each of the five feature maps.
    """
    total = torch.zeros((), device=first[0].device)
    for a, b, head in zip(first, second, heads, strict=True):
        difference = F.normalize(a.float(), dim=1, eps=1e-10) - F.normalize(b.float(), dim=1, eps=1e-10)
        total = total + (difference.square() * head.view(1, -1, 1, 1).to(a.device)).sum(1).mean()
    return total


def frechet_distance(first: Tensor, second: Tensor) -> float:
    """Fréchet distance of two Gaussians fitted to features (N, D); rFVD with features of a video network.

    ‖μ₁ − μ₂‖² + tr(Σ₁ + Σ₂ − 2(Σ₁Σ₂)^½); needs at least two samples each.
    """
    a, b = first.double(), second.double()
    difference = (a.mean(0) - b.mean(0)).square().sum()
    cov_a, cov_b = torch.cov(a.T).reshape(a.shape[1], -1), torch.cov(b.T).reshape(b.shape[1], -1)
    values, vectors = torch.linalg.eigh(cov_a)
    root = vectors @ torch.diag(values.clamp(min=0.0).sqrt()) @ vectors.T
    cross = torch.linalg.eigvalsh(root @ cov_b @ root).clamp(min=0.0).sqrt().sum()
    return float(difference + cov_a.trace() + cov_b.trace() - 2.0 * cross)
