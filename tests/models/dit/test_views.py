"""Networks of several views: equal to the network of one view, by view and in any order; released files."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from nemo_cosmos.models.dit import CosmosDiT, DiTConfig, build_dit
from nemo_cosmos.models.dit.state_dict import original_shapes
from tests.models.dit.golden import named_normal, normal_parameters

TINY = {"hidden_size": 64, "num_attention_heads": 4, "num_layers": 2, "text_width": 32, "adaln_lora_dim": 8}
FRAMES, ROWS = 4, 6
PATCH = "x_embedder.proj.1.weight"
WORDS = 5


def network(preset: str, state: dict[str, Tensor] | None = None, **extra) -> CosmosDiT:
    config = DiTConfig.preset(preset, **TINY, **extra)
    net = build_dit(config)
    net.load_original(normal_parameters(original_shapes(config)) if state is None else state)
    return net


def inputs(views: int, seed: str = "x") -> dict[str, Tensor]:
    frames = views * FRAMES
    mask = torch.zeros(1, 1, frames, ROWS, ROWS)
    mask[:, :, ::FRAMES] = 1
    return {
        "x": named_normal(seed, (1, 16, frames, ROWS, ROWS)), "timesteps": torch.linspace(0.1, 0.9, frames)[None],
        "text": named_normal("text", (1, views * WORDS, 32)), "fps": torch.tensor([10.0]), "condition_mask": mask,
    }  # fmt: skip


@pytest.mark.parametrize("view", [0, 5])
def test_one_view_is_the_network_of_one_view(view: int) -> None:
    several = network("predict2-2b-multiview")
    state = several.to_original()
    # With no weight on the view's channels, the last of the patch embedding, there is nothing else that differs.
    columns = state[f"net.{PATCH}"].unflatten(1, (-1, 4))
    columns[:, 18:] = 0
    several.load_original(state)
    single = {name: state[f"net.{name}"] for name in original_shapes(several.dit_config) if "view" not in name}
    single[PATCH] = columns[:, :18].flatten(1)
    one = network("predict2-2b-video2world", single, rope_ratio=(8 / 24, 3.0, 3.0), rope_uses_fps=True)
    given = inputs(1)
    with torch.no_grad():
        out = several(**given, view_ids=torch.tensor([[view]]))
        torch.testing.assert_close(out, one(**given), rtol=1e-5, atol=1e-6)
    # The view's channels count when they have weight.
    assert not torch.allclose(network("predict2-2b-multiview")(**given, view_ids=torch.tensor([[view]])), out)


@pytest.mark.parametrize("preset", ["predict2-2b-multiview", "predict1-7b-video2world-multiview"])
def test_exchanged_views_exchange_their_outputs(preset: str) -> None:
    net, given, ids, order = network(preset), inputs(3), torch.tensor([[4, 0, 2]]), [2, 0, 1]
    repeat = torch.tensor([[0.0, 0.7, 1.0]])
    if net.dit_config.objective == "edm":
        given["timesteps"] = torch.tensor([0.3])

    def exchanged(value: Tensor, axis: int) -> Tensor:
        return value.unflatten(axis, (3, -1)).index_select(axis, torch.tensor(order)).flatten(axis, axis + 1)

    with torch.no_grad():
        out = net(**given, view_ids=ids, frame_repeat=repeat)
        axes = {"x": 2, "text": 1, "condition_mask": 2}
        if given["timesteps"].dim() == 2:
            axes["timesteps"] = 1
        changed = {name: exchanged(value, axes[name]) if name in axes else value for name, value in given.items()}
        other = net(**changed, view_ids=ids[:, order], frame_repeat=repeat[:, order])
    torch.testing.assert_close(other, exchanged(out, 2), rtol=1e-4, atol=1e-5)
    assert not torch.allclose(net(**given, view_ids=ids[:, order], frame_repeat=repeat), out, atol=1e-3)


def test_a_view_attends_to_its_own_text_alone() -> None:
    """With self attention between views shut off, a view's output depends on no other view's caption."""
    net, given = network("predict2-2b-multiview"), inputs(2)
    for layer in net.layers:
        torch.nn.init.zeros_(layer.self_attention.linear_proj.weight)
    ids = torch.tensor([[0, 1]])
    with torch.no_grad():
        out = net(**given, view_ids=ids)
        given["text"][:, WORDS:] = 0
        changed = net(**given, view_ids=ids)
    torch.testing.assert_close(changed[:, :, :FRAMES], out[:, :, :FRAMES], rtol=1e-5, atol=1e-6)
    assert not torch.allclose(changed[:, :, FRAMES:], out[:, :, FRAMES:], atol=1e-3)


def test_views_of_predict1_are_all_six_in_order_by_default() -> None:
    net, given = network("predict1-7b-video2world-multiview"), inputs(6)
    given["timesteps"] = torch.tensor([0.3])
    with torch.no_grad():
        out = net(**given)
        torch.testing.assert_close(net(**given, view_ids=torch.arange(6)[None]), out)
        torch.testing.assert_close(net(**given, frame_repeat=torch.zeros(1, 6)), out)
        assert not torch.allclose(net(**given, frame_repeat=torch.tensor([[0.0, 0, 0, 0, 1, 1]])), out, atol=1e-3)


@pytest.mark.parametrize("preset", ["predict1-7b-text2world-multiview", "predict1-7b-video2world-multiview"])
def test_a_released_file_of_predict1_multiview_loads_strictly(preset: str) -> None:
    """Under the released names, with the log-variance head and the one buffer that these files have."""
    config = DiTConfig.preset(preset, **TINY)
    shapes = {
        "net.view_embeddings.weight": (6, 6), "net.repeat_frame_embedding.weight": (6, 1),
        "net.repeat_frame_embedding.bias": (6,), "net.affline_norm.weight": (64,),
        f"net.{PATCH}": (64, (16 + int(config.condition_mask) + 1 + 6) * 4),
    }  # fmt: skip
    state = {f"net.{name}": value for name, value in normal_parameters(original_shapes(config)).items()}
    assert {name: tuple(state[name].shape) for name in shapes} == shapes
    assert not [name for name in state if "pos_emb" in name]
    state |= {"net.pos_embedder.seq": torch.arange(128.0), "logvar.0.freqs": torch.zeros(128),
              "logvar.0.phases": torch.zeros(128), "logvar.1.weight": torch.zeros(1, 128)}  # fmt: skip
    net = build_dit(config)
    report = net.load_original(state)
    assert report.complete and report.matched == len(original_shapes(config)) and len(report.passed_over) == 4
    back = net.to_original()
    assert all(torch.equal(back[name], value) for name, value in state.items() if name.startswith("net."))
    assert set(back) == {name for name in state if name.startswith("net.")}
