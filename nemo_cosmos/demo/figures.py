"""How near a generated video is to the true one: PSNR, SSIM, and a distance of features."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from nemo_cosmos.errors import InputError
from nemo_cosmos.pixels import from_levels

if TYPE_CHECKING:
    from nemo_cosmos.models.video_tokenizer import VideoTokenizer

LARGEST_PSNR = 100.0
"""dB that stand for equal frames."""

FeatureDistance = Callable[[Tensor, Tensor], float]
"""Of two (3, T, H, W) uint8 videos of one shape."""


@dataclass(frozen=True)
class Figures:
    """One video against the true one; the first frame, which was given, does not count.

    Attributes:
        psnr_db: over all pixels of all frames but the first.
        ssim: mean over frames, 1 for equal ones.
        feature_distance: as ``feature_distance`` measures it, 0 for equal videos.
        psnr_of_frames: dB, of frame 1, 2, ...
    """

    psnr_db: float
    ssim: float
    feature_distance: float
    psnr_of_frames: list[float]


def measure(video: Tensor, truth: Tensor, distance: FeatureDistance) -> Figures:
    """The figures of a (3, T, H, W) uint8 video; InputError when the true one has another shape."""
    from nemo_cosmos.models.tokenizer.metrics import ssim

    if video.shape != truth.shape:
        raise InputError(
            f"videos of shape {tuple(video.shape)} and {tuple(truth.shape)} cannot be compared; remove the folders of "
            "generated videos and run again"
        )
    similarity = ssim(from_levels(video[None, :, 1:]), from_levels(truth[None, :, 1:]))
    return Figures(
        psnr_db=psnr(video[:, 1:], truth[:, 1:]),
        ssim=float(similarity),
        feature_distance=distance(video, truth),
        psnr_of_frames=[psnr(video[:, frame], truth[:, frame]) for frame in range(1, truth.shape[1])],
    )


def mean(figures: list[Figures]) -> Figures:
    """Of several videos of one length."""

    def of(values: list[float]) -> float:
        return sum(values) / len(values)

    return Figures(
        psnr_db=of([one.psnr_db for one in figures]),
        ssim=of([one.ssim for one in figures]),
        feature_distance=of([one.feature_distance for one in figures]),
        psnr_of_frames=[of(list(frame)) for frame in zip(*(one.psnr_of_frames for one in figures), strict=True)],
    )


def psnr(video: Tensor, truth: Tensor) -> float:
    """Peak signal-to-noise ratio of two uint8 tensors of one shape, in dB; ``LARGEST_PSNR`` for equal ones."""
    error = (video.double() - truth.double()).square().mean().item()
    return LARGEST_PSNR if error == 0 else min(LARGEST_PSNR, 10 * math.log10(255**2 / error))


def feature_distance(tokenizer: VideoTokenizer) -> FeatureDistance:
    """A perceptual distance made as LPIPS is, of features that were trained to code video instead of VGG's.

    The features of both videos after each level of the tokenizer's encoder are brought to length 1 over channels; the
    distance is the mean, over levels, places and latent frames after the first, of their squared difference: 0 for
    equal videos, 2 for unrelated ones. No weights are learned, so its values are not LPIPS's.

    Raises:
        InputError: not a tokenizer of Cosmos-Tokenize1's classes.
    """
    from nemo_cosmos.models.tokenizer.cosmos import CosmosTokenizer
    from nemo_cosmos.models.tokenizer.metrics import lpips

    if not isinstance(tokenizer, CosmosTokenizer):
        raise InputError(f"{tokenizer.name}: feature distances need a tokenizer of Cosmos-Tokenize1's classes")
    encoder = tokenizer.module.encoder

    def features(video: Tensor) -> list[Tensor]:
        found: list[Tensor] = []

        def keep(module: Any, inputs: Any, output: Tensor) -> None:
            later = output[:, :, 1:] if output.shape[2] > 1 else output
            found.append(later.transpose(1, 2).flatten(0, 1))

        hooks = [part.register_forward_hook(keep) for part in (*encoder.down, encoder.mid)]
        try:
            with torch.no_grad():
                encoder(from_levels(video[None]).to(tokenizer.device, tokenizer.dtype))
        finally:
            for hook in hooks:
                hook.remove()
        return found

    def distance(video: Tensor, truth: Tensor) -> float:
        first, second = features(video), features(truth)
        heads = [torch.full((maps.shape[1],), 1 / len(first)) for maps in first]
        return float(lpips(first, second, heads))

    return distance
