"""The same numbers as diffusers' CosmosTransformer3DModel on random weights."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from diffusers import CosmosTransformer3DModel
from diffusers.models.transformers import transformer_cosmos

from nemo_cosmos.models.dit import DiTConfig, build_dit

# Released names -> diffusers' names, replaced in this order.
RENAMES = [
    ("t_embedder.1", "time_embed.t_embedder"), ("affline_norm", "time_embed.norm"),
    (".blocks.0.block.attn", ".attn1"), (".blocks.1.block.attn", ".attn2"), (".blocks.2.block", ".ff"),
    (".blocks.0.adaLN_modulation.", ".norm1.linear_"), (".blocks.1.adaLN_modulation.", ".norm2.linear_"),
    (".blocks.2.adaLN_modulation.", ".norm3.linear_"), ("to_q.0", "to_q"), ("to_q.1", "norm_q"), ("to_k.0", "to_k"),
    ("to_k.1", "norm_k"), ("to_v.0", "to_v"), ("layer1", "net.0.proj"), ("layer2", "net.2"), ("proj.1", "proj"),
    ("x_embedder", "patch_embed"), ("extra_pos_embedder", "learnable_pos_embed"),
    ("final_layer.adaLN_modulation.", "norm_out.linear_"), ("final_layer.linear", "proj_out"),
    ("blocks.block", "transformer_blocks."),
]  # fmt: skip


@pytest.fixture
def nearest_resize(monkeypatch: pytest.MonkeyPatch) -> None:
    """diffusers resizes the padding mask with torchvision, of which no build goes with the tested torch."""
    functional = SimpleNamespace(resize=lambda mask, size, interpolation: F.interpolate(mask, size, mode="nearest"))
    stand_in = SimpleNamespace(functional=functional, InterpolationMode=SimpleNamespace(NEAREST="nearest"))
    monkeypatch.setattr(transformer_cosmos, "transforms", stand_in, raising=False)


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
    theirs = CosmosTransformer3DModel(
        in_channels=16 + config.condition_mask, num_attention_heads=4, attention_head_dim=16, num_layers=2,
        text_embed_dim=32, adaln_lora_dim=8, max_size=(128, 240, 240), patch_size=(1, 2, 2),
        rope_scale=config.rope_ratio, concat_padding_mask=True, extra_pos_embed_type="learnable",
    ).eval()  # fmt: skip
    state = {}
    for name, tensor in net.to_original().items():
        name = name.removeprefix("net.")
        if name != "pos_embedder.seq":
            for old, new in RENAMES:
                name = name.replace(old, new)
            state[name] = tensor
    theirs.load_state_dict(state)
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
