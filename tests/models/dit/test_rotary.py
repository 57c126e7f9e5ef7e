"""Rotary tables: exact frequencies in both precisions, and positions in time."""

from __future__ import annotations

import pytest
import torch

from nemo_cosmos.models.dit import DiTConfig
from nemo_cosmos.models.dit.config import TokenGrid
from nemo_cosmos.models.dit.embeddings import RotaryTable

CPU = torch.device("cpu")
# First frequencies of the original's bfloat16 tables, by axis.
BFLOAT16 = {
    ("predict2-2b-video2world", 0): [1, 0.66015625, 0.431640625, 0.28515625, 0.1884765625, 0.123046875],
    ("predict2-2b-video2world", 1): [1, 0.609375, 0.373046875, 0.228515625, 0.138671875, 0.08447265625],
    ("predict2-2b-text2image", 1): [1, 0.6015625, 0.361328125, 0.21875, 0.130859375, 0.07861328125],
    ("predict2-14b-video2world", 0): [1, 0.6640625, 0.44140625, 0.291015625, 0.1943359375, 0.12890625],
    ("predict2-2b-multiview", 0): [1, 0.69140625, 0.48046875, 0.33203125, 0.2314453125, 0.16015625],
}
FLOAT32 = {
    ("predict1-7b-video2world", 0): [1, 0.6365713, 0.40522302],
    ("predict1-7b-video2world", 1): [1, 0.64494668, 0.41595622],
    ("predict1-14b-video2world", 2): [1, 0.62297743, 0.38810087],
}


@pytest.mark.parametrize(("preset", "axis"), BFLOAT16)
def test_rounded_frequencies(preset: str, axis: int) -> None:
    table = RotaryTable(DiTConfig.preset(preset, rope_table_dtype="bfloat16"))
    assert table._frequencies(axis, CPU)[:6].tolist() == BFLOAT16[preset, axis]


@pytest.mark.parametrize(("preset", "axis"), FLOAT32)
def test_frequencies(preset: str, axis: int) -> None:
    found = RotaryTable(DiTConfig.preset(preset))._frequencies(axis, CPU)
    torch.testing.assert_close(found[:3], torch.tensor(FLOAT32[preset, axis]), rtol=1e-6, atol=0)


@pytest.mark.parametrize(
    ("fps", "positions"),
    [
        (10, [0, 2.40625, 4.8125, 7.21875, 9.625, 12, 14.4375, 16.75]),
        (30, [0, 0.8046875, 1.609375, 2.40625, 3.21875, 4, 4.8125, 5.59375]),
        (24, [0, 1, 2, 3, 4, 5, 6, 7]),
    ],
)
def test_rounded_time_positions(fps: int, positions: list[float]) -> None:
    table = RotaryTable(DiTConfig.preset("predict2-2b-multiview", rope_table_dtype="bfloat16"))
    cos, sin = table(TokenGrid(8, 1, 1), torch.tensor([float(fps)]), 1, CPU)
    # The first frequency is 1: its angle is the position itself.
    expected = torch.tensor(positions)
    torch.testing.assert_close(cos[:, 0, 0, 0], expected.cos())
    torch.testing.assert_close(sin[:, 0, 0, 0], expected.sin())


def test_samples_may_differ_in_frame_rate() -> None:
    table = RotaryTable(DiTConfig.preset("predict1-7b-video2world"))
    both = table(TokenGrid(4, 2, 3), torch.tensor([24.0, 12.0]), 1, CPU)
    for i, fps in enumerate((24.0, 12.0)):
        one = table(TokenGrid(4, 2, 3), torch.tensor([fps]), 1, CPU)
        assert torch.equal(both[0][:, i], one[0][:, 0])
        assert torch.equal(both[1][:, i], one[1][:, 0])
