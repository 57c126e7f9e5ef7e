"""How windows of a video are padded for a tokenizer and cut back, and resized."""

from __future__ import annotations

import pytest
import torch

from nemo_cosmos.reconstruct.codec import pad_window, resize_short_side


@pytest.mark.parametrize("count", [1, 7, 17])
@pytest.mark.parametrize("size", [(50, 70), (16, 32)])
def test_padding_is_cut_back_exactly(count: int, size: tuple[int, int]) -> None:
    frames = torch.randint(0, 256, (3, count, *size), dtype=torch.uint8)
    padded, crop = pad_window(frames)
    assert (padded.shape[1] - 1) % 8 == 0 and padded.shape[2] % 16 == 0 and padded.shape[3] % 16 == 0
    assert torch.equal(crop.apply(padded), frames)


def test_short_side() -> None:
    frames = torch.zeros(3, 2, 50, 70, dtype=torch.uint8)
    assert resize_short_side(frames, 24).shape == (3, 2, 24, 34)
    assert resize_short_side(frames.transpose(2, 3), 24).shape == (3, 2, 34, 24)
    assert resize_short_side(frames, 1).shape == (3, 2, 1, 2)
