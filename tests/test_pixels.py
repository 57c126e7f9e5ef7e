"""There is one conversion between 8-bit pixels and [-1, 1], and each undoes the other."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
import torch

from nemo_cosmos.pixels import from_levels, to_levels, to_uint8

PACKAGE = Path(__file__).parents[1] / "nemo_cosmos"


def test_every_level_comes_back() -> None:
    levels = torch.arange(256, dtype=torch.uint8).reshape(1, 4, 64)
    video = from_levels(levels)
    assert video.dtype == torch.float32 and video.min() == -1 and video.max() == 1
    assert torch.equal(to_uint8(video), levels)
    assert torch.equal(from_levels(levels.float()), video)


def test_levels_are_the_nearest_and_stay_in_range() -> None:
    values = torch.tensor([-1.5, -1.0, -1 + 0.49 / 127.5, -1 + 0.51 / 127.5, 0.0, 1 - 0.51 / 127.5, 1.0, 7.0])
    assert to_uint8(values).tolist() == [0, 0, 0, 1, 128, 254, 255, 255]
    assert torch.equal(to_levels(values), to_uint8(values).float())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_converted_in_fp32(dtype: torch.dtype) -> None:
    video = torch.linspace(-1, 1, 1001).to(dtype)
    assert torch.equal(to_uint8(video), to_uint8(video.float()))
    assert from_levels(torch.tensor([3.0], dtype=dtype)).dtype == torch.float32


def test_no_other_file_converts_pixels() -> None:
    others = [
        file.relative_to(PACKAGE).as_posix()
        for file in PACKAGE.rglob("*.py")
        if any(
            isinstance(node, ast.Constant) and node.value == 127.5 for node in ast.walk(ast.parse(file.read_text()))
        )
    ]
    assert others == ["pixels.py"]
