"""Figures of generated videos are what their names say."""

from __future__ import annotations

import math

import pytest
import torch

from nemo_cosmos.demo.figures import LARGEST_PSNR, Figures, feature_distance, mean, measure, psnr
from nemo_cosmos.errors import InputError
from nemo_cosmos.models.tokenizer import build_tokenizer
from nemo_cosmos.models.tokenizer.cosmos import CosmosTokenizer

VIDEO = torch.randint(20, 230, (3, 5, 32, 48), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def test_psnr_of_known_error() -> None:
    assert psnr(VIDEO + 8, VIDEO) == pytest.approx(20 * math.log10(255 / 8))
    assert psnr(VIDEO, VIDEO) == LARGEST_PSNR


def test_the_given_first_frame_does_not_count() -> None:
    other = VIDEO.clone()
    other[:, 1:] += 8
    found = measure(other, VIDEO, lambda first, second: 0.5)
    assert found.psnr_db == pytest.approx(20 * math.log10(255 / 8))
    assert found.psnr_of_frames == pytest.approx([found.psnr_db] * 4)
    assert 0.5 < found.ssim < 1 and found.feature_distance == 0.5
    first_alone = VIDEO.clone()
    first_alone[:, 0] = 0
    assert measure(first_alone, VIDEO, lambda first, second: 0.0).psnr_db == LARGEST_PSNR


def test_videos_of_other_length_are_refused() -> None:
    with pytest.raises(InputError, match="cannot be compared"):
        measure(VIDEO[:, :3], VIDEO, lambda first, second: 0.0)


def test_feature_distance_grows_with_the_difference() -> None:
    torch.manual_seed(0)
    distance = feature_distance(CosmosTokenizer(build_tokenizer("CV4x8x8-360p", channels=8)))
    noise = torch.randn(VIDEO.shape)
    near, far = ((VIDEO.float() + scale * noise).clamp(0, 255).to(torch.uint8) for scale in (4, 60))
    assert distance(VIDEO, VIDEO) == 0.0
    assert 0 < distance(near, VIDEO) < distance(far, VIDEO) < 4


def test_mean_is_of_each_figure() -> None:
    found = mean([Figures(20.0, 0.5, 0.1, [20.0, 30.0]), Figures(30.0, 0.7, 0.3, [10.0, 40.0])])
    assert (found.psnr_db, found.ssim, found.feature_distance) == pytest.approx((25.0, 0.6, 0.2))
    assert found.psnr_of_frames == [15.0, 35.0]
