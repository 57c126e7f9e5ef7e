"""Bringing frames to size: crop, pad, stretch."""

import pytest
import torch

from nemo_cosmos.data.resize import geometry, padding_mask, resize


@pytest.mark.parametrize("source", [(100, 50), (50, 100), (64, 64), (7, 301), (33, 17)])
@pytest.mark.parametrize("fit", ["crop", "pad", "stretch"])
def test_every_fit_gives_the_target_size(source, fit):
    image = torch.full((3, *source), 200, dtype=torch.uint8)
    out = resize(image, (32, 48), fit)
    assert out.shape == (3, 32, 48)
    assert (out == 200).all() or fit == "pad"


def test_crop_takes_the_middle_without_distortion():
    image = torch.zeros(3, 40, 120, dtype=torch.uint8)
    image[:, :, 40:80] = 255
    assert (resize(image, (40, 40), "crop") == 255).all()
    plan = geometry((40, 120), (20, 20), "crop")
    assert plan.resized == (20, 60) and plan.left == 20


def test_padding_mask_marks_whole_cells_of_padding():
    mask = padding_mask((100, 50), (64, 64), "pad", 8)  # 32 columns of picture between two bars of 16
    assert mask.shape == (1, 8, 8) and mask.dtype == torch.uint8
    assert mask[0, 0].tolist() == [1, 1, 0, 0, 0, 0, 1, 1]
    out = resize(torch.full((3, 100, 50), 200, dtype=torch.uint8), (64, 64), "pad")
    assert (out[:, :, :16] == 0).all() and (out[:, :, 16:48] == 200).all() and (out[:, :, 48:] == 0).all()
    assert padding_mask((100, 50), (64, 64), "crop", 8) is None
    assert padding_mask((32, 32), (64, 64), "pad", 8) is None
