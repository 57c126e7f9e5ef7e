"""The forward pass against values of the original networks."""

from __future__ import annotations

import math

import pytest
import torch

from nemo_cosmos.models.dit import DiTConfig, build_dit
from nemo_cosmos.models.dit.state_dict import original_shapes
from tests.models.dit.golden import count_parameters, hash_parameters, hash_tensor, named_normal, normal_parameters

TINY = {
    "hidden_size": 64, "num_attention_heads": 4, "num_layers": 2, "text_width": 32, "adaln_lora_dim": 8,
    "max_height": 32, "max_width": 32, "max_frames": 16,
}  # fmt: skip
INDICES = [0, 1, 2, 12, 13, 100, 500, 1000]
PREDICT1 = [
    ("predict1-7b-text2world", {}, 164_800, 0.05383292, 1.23201513,
     [1.826939, 0.044361, 1.388914, 0.590108, 0.069143, 2.041835, -2.300637, -2.058814, -0.107647, 0.197654]),
    ("predict1-7b-video2world", {}, 165_056, 0.04621752, 1.24373198,
     [2.350694, 2.134676, 1.396518, 1.746517, 1.496916, 2.565584, -1.681438, -0.500691, -0.670030, -0.689956]),
    ("predict1-14b-video2world", {}, 165_056, 0.04620522, 1.24371541,
     [2.349152, 2.134766, 1.396283, 1.746381, 1.494248, 2.564738, -1.681177, -0.500724, -0.669991, -0.690312]),
    ("predict1-7b-video2world-multiview", {"num_views": 2, "view_channels": 3}, 162_764, 0.48362806, 1.53657603,
     [-1.737004, -1.635081, 1.423783, 4.685165, -0.150171, -3.435995, 1.422696, -0.719175, -1.263440, -2.895618]),
]  # fmt: skip


@pytest.mark.parametrize(("preset", "extra", "parameters", "mean", "mean_abs", "values"), PREDICT1)
def test_predict1(preset, extra, parameters, mean, mean_abs, values) -> None:
    config = DiTConfig.preset(preset, **TINY, **extra)
    net = build_dit(config)
    assert count_parameters(net) == parameters
    state = hash_parameters(original_shapes(config))
    assert len(state) == 50
    net.load_original(state)
    views = 2 if config.multiview else 1
    frames = 3 * views
    padding = torch.zeros(1, 1, 64, 96)
    padding[:, :, 48:] = 1
    mask = None
    if config.condition_mask:
        mask = torch.zeros(1, 1, frames, 8, 12)
        mask[:, :, ::3] = 1
    with torch.no_grad():
        out = net(
            hash_tensor((1, 16, frames, 8, 12), 9001),
            torch.tensor([0.25 * math.log(0.8)]),
            hash_tensor((1, 20, 32), 9002),
            fps=torch.tensor([30.0]),
            padding_mask=padding,
            condition_mask=mask,
            frame_repeat=torch.tensor([[0.0, 0.7]]) if config.multiview else None,
        ).flatten()
    last = [4608, 9215] if config.multiview else [2304, 4607]
    expected = torch.tensor(values)
    # The listed values carry seven figures.
    torch.testing.assert_close(out[INDICES + last], expected, rtol=1e-5, atol=2e-6)
    assert out.mean().item() == pytest.approx(mean, rel=1e-5, abs=1e-7)
    assert out.abs().mean().item() == pytest.approx(mean_abs, rel=1e-5)


PREDICT2 = {
    "A": ("predict2-2b-text2image", {}, (2, 1), 0.66759127, 46.196689,
          [-0.226153, 0.019570, -0.130714, 0.338256], [-1.216457, 1.210218, 0.460229, 0.274603], -2.379346),
    "B": ("predict2-14b-video2world", {}, (1, 4), 0.68057079, 66.357329,
          [-0.646104, -0.275829, -1.718881, -0.097923], [-1.621144, 0.129087, -0.436721, -0.579769], -1.806426),
    "C": ("predict2-2b-multiview", {}, (1, 12), 0.69216679, 117.672743,
          [0.171882, 0.184707, -0.339148, 0.876648], [-0.921887, 0.688913, -0.734282, 0.412306], -0.587075),
}  # fmt: skip


@pytest.mark.parametrize("case", PREDICT2)
def test_predict2(case: str) -> None:
    preset, extra, (batch, frames), mean_abs, norm, first, last, middle = PREDICT2[case]
    config = DiTConfig.preset(preset, hidden_size=256, num_attention_heads=2, num_layers=2, adaln_lora_dim=32, **extra)
    net = build_dit(config)
    net.load_original(normal_parameters(original_shapes(config)))
    views = 3 if case == "C" else 1
    text = named_normal(f"{case}.text", (batch, 512 * views, 1024))
    condition = None
    options = {}
    if case == "A":
        time = torch.tensor([[0.3], [0.9]])
    else:
        time = torch.tensor([[1e-4 / 1.0001, 0.6, 0.6, 0.6] * views])
        condition = torch.zeros(batch, 1, frames, 8, 12)
        condition[:, :, ::4] = 1
    if case == "C":
        text[:, :1024] = 0
        options = {"fps": torch.tensor([10.0]), "view_ids": torch.tensor([[4, 5, 0]])}
    with torch.no_grad():
        x = named_normal(f"{case}.x", (batch, 16, frames, 8, 12))
        out = net(x, time, text, padding_mask=torch.zeros(batch, 1, 64, 96), condition_mask=condition, **options)
    close = {"rtol": 1e-5, "atol": 2e-6}
    torch.testing.assert_close(out[0, 0, 0, 0, :4], torch.tensor(first), **close)
    torch.testing.assert_close(out[-1, -1, -1, -1, -4:], torch.tensor(last), **close)
    assert out[0, 5, -1, 3, 7].item() == pytest.approx(middle, rel=1e-5)
    assert out.abs().mean().item() == pytest.approx(mean_abs, rel=1e-5)
    assert out.norm().item() == pytest.approx(norm, rel=1e-5)
