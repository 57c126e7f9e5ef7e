"""The same numbers as diffusers' CosmosTransformer3DModel on random weights."""

from __future__ import annotations

import pytest
import torch

from nemo_cosmos.checkpoint.diffusers import build_transformer
from nemo_cosmos.models.dit import DiTConfig, build_dit


@pytest.mark.usefixtures("nearest_resize")
@pytest.mark.parametrize("preset", ["predict1-7b-text2world", "predict1-7b-video2world", "predict1-14b-video2world"])
@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize(("frames", "height", "width"), [(3, 8, 12), (5, 16, 10)])
@pytest.mark.parametrize("fps", [10, 24, 30])
def test_parity(preset: str, batch: int, frames: int, height: int, width: int, fps: int) -> None:
    config = DiTConfig.preset(
        preset, num_layers=2, hidden_size=64, num_attention_heads=4, text_width=32, adaln_lora_dim=8
    )
    net = build_dit(config, seed=5)
    with torch.no_grad():
        # The modulation starts at zero; make every path count.
        for parameter in net.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
    theirs = build_transformer(config, net.to_original())
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(batch, 16, frames, height, width, generator=generator)
    text = torch.randn(batch, 20, 32, generator=generator)
    time = torch.linspace(-0.5, 0.7, batch)
    padding = torch.zeros(1, 1, height * 8, width * 8)
    padding[..., -8:] = 1
    mask = None
    if config.condition_mask:
        mask = torch.zeros(batch, 1, frames, height, width)
        mask[:, :, :2] = 1
    with torch.no_grad():
        ours = net(
            x, time, text, fps=torch.full((batch,), float(fps)), padding_mask=padding.expand(batch, -1, -1, -1),
            condition_mask=mask,
        )  # fmt: skip
        reference = theirs(
            x, time, text, fps=fps, condition_mask=mask, padding_mask=padding, return_dict=False
        )[0]  # fmt: skip
    assert (ours - reference).norm() / reference.norm() < 1e-5


@pytest.mark.usefixtures("nearest_resize")
@pytest.mark.parametrize(
    ("preset", "frames"),
    [("predict2-2b-text2image", 1), ("predict2-14b-text2image", 1), ("predict2-2b-video2world", 4),
     ("predict2-14b-video2world", 4)],
)  # fmt: skip
@pytest.mark.parametrize("batch", [1, 2])
def test_parity_of_predict2(preset: str, frames: int, batch: int) -> None:
    """Each frame has a time of its own there; diffusers scales time positions by 24 / fps, the original does not."""
    config = DiTConfig.preset(
        preset, num_layers=2, hidden_size=64, num_attention_heads=4, text_width=32, adaln_lora_dim=8
    )
    net = build_dit(config, seed=5)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
    theirs = build_transformer(config, net.to_original())
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(batch, 16, frames, 10, 12, generator=generator)
    text = torch.randn(batch, 20, 32, generator=generator)
    time = torch.rand(batch, frames, generator=generator)
    padding = torch.zeros(1, 1, 80, 96)
    padding[..., -8:] = 1
    mask = (torch.arange(frames) < 2).float().expand(batch, 1, frames)[..., None, None].expand(-1, -1, -1, 10, 12)
    if not config.condition_mask:
        mask = None
    with torch.no_grad():
        ours = net(x, time, text, fps=torch.full((batch,), 16.0), padding_mask=padding.expand(batch, -1, -1, -1),
                   condition_mask=mask)  # fmt: skip
        reference = theirs(x, time[:, None, :, None, None], text, fps=24, condition_mask=mask, padding_mask=padding,
                           return_dict=False)[0]  # fmt: skip
    assert (ours - reference).norm() / reference.norm() < 1e-5
