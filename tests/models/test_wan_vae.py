"""The Wan VAE: reference values, both namings of its weights, what it takes and what it refuses."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from nemo_cosmos.errors import InputError
from nemo_cosmos.models.video_tokenizer import open_tokenizer
from nemo_cosmos.models.wan_state_dict import parameter_names
from nemo_cosmos.models.wan_vae import LATENTS_MEAN, LATENTS_STD, WanVAE, load_wan_vae
from tests.models.wan import named_normal, original_layout, save_tiny_wan_vae, synthetic_weights

WEIGHTS = "diffusion_pytorch_model.safetensors"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_wan_vae(tmp_path_factory.mktemp("wan") / "vae")


@pytest.fixture(scope="module")
def vae(folder: Path) -> WanVAE:
    return load_wan_vae(folder)


def video(frames: int = 9, batch: int = 1) -> Tensor:
    return torch.tanh(named_normal("video", (batch, 3, frames, 16, 24)))


def close(found: Tensor, expected: list[float]) -> None:
    torch.testing.assert_close(found, torch.tensor(expected), rtol=1e-5, atol=2e-6)


def summary(x: Tensor) -> Tensor:
    parts = [
        x.mean(),
        x.std(unbiased=False),
        x.norm(),
        *x.flatten()[:4],
        *x.flatten()[-4:],
        x[:, :, 0].norm(),
        x[:, :, -1].norm(),
    ]
    return torch.stack(parts)


def test_reference_values_at_full_size(tmp_path: Path) -> None:
    """Statistics, first and last numbers, and norms of the first and last frame, of weights made from their names."""
    torch.save(synthetic_weights(), tmp_path / "tokenizer.pth")
    full = load_wan_vae(tmp_path / "tokenizer.pth")
    assert sum(value.numel() for value in full.vae.parameters()) == 126_892_531
    assert len(full.to_original()) == 194
    latent = full.encode(torch.tanh(named_normal("V.video", (1, 3, 13, 32, 48))))
    assert latent.shape == (1, 16, 4, 4, 6)
    close(
        summary(latent),
        [0.09551241, 0.48896512, 19.525619, 0.312915, 0.318013, 0.346151, 0.344913, 0.113479, 0.149840, 0.114342,
         -0.154981, 10.007043, 10.155991],
    )  # fmt: skip
    decoded = full.decode(named_normal("V.latent", (1, 16, 4, 4, 6)))
    assert decoded.shape == (1, 3, 13, 32, 48)
    close(
        summary(decoded),
        [-0.03988829, 0.57170925, 140.267679, -0.064817, 0.086278, -0.026665, -0.150755, -0.093893, 0.110787,
         -0.125261, -0.549459, 24.890534, 39.238419],
    )  # fmt: skip


def test_every_original_name_has_one_of_diffusers() -> None:
    from diffusers import AutoencoderKLWan

    names = parameter_names(4, 2)
    assert len(set(names.values())) == len(names)
    with torch.device("meta"):
        theirs = {key: tuple(value.shape) for key, value in AutoencoderKLWan().state_dict().items()}
    assert {names[name]: shape for name, shape in original_layout().items()} == theirs


@pytest.mark.parametrize("wrapper", [None, "model", "state_dict"])
def test_original_weights_come_back_bit_for_bit(tmp_path: Path, wrapper: str | None) -> None:
    weights = synthetic_weights(4)
    torch.save(weights if wrapper is None else {wrapper: weights}, tmp_path / "tokenizer.pth")
    first = load_wan_vae(tmp_path / "tokenizer.pth")
    first.save_diffusers(tmp_path / "vae")
    second = load_wan_vae(tmp_path / "vae")
    second.save_original(tmp_path / "back")
    back = torch.load(tmp_path / "back" / "tokenizer.pth", weights_only=True)
    assert back.keys() == weights.keys() and all(torch.equal(back[key], weights[key]) for key in weights)
    assert first.identity == second.identity
    assert first.config == second.config and first.config.dim_mult == (1, 2, 4, 4)
    x = torch.tanh(named_normal("x", (1, 3, 5, 16, 16)))
    assert torch.equal(first.encode(x), second.encode(x))


def test_latents_are_what_pipelines_of_diffusers_use(folder: Path, vae: WanVAE) -> None:
    from diffusers import AutoencoderKLWan

    peer = AutoencoderKLWan.from_pretrained(folder).eval()
    mean, std = (torch.tensor(values).view(1, -1, 1, 1, 1) for values in (LATENTS_MEAN, LATENTS_STD))
    assert vae.mean.flatten().tolist() == pytest.approx(LATENTS_MEAN)
    assert vae.std.flatten().tolist() == pytest.approx(LATENTS_STD)
    with torch.no_grad():
        expected = (peer.encode(video()).latent_dist.mode() - mean) / std
        latent = vae.encode(video())
        torch.testing.assert_close(latent, expected, rtol=1e-5, atol=1e-6)
        decoded = peer.decode(latent * std + mean).sample
        torch.testing.assert_close(vae.decode(latent).clamp(-1, 1), decoded, rtol=1e-5, atol=1e-6)


def test_geometry(vae: WanVAE) -> None:
    assert (vae.temporal_compression, vae.spatial_compression, vae.latent_channels) == (4, 8, 16)
    assert vae.chunk_frames is None and vae.has_statistics and vae.mean.shape == vae.std.shape == (16, 1)
    assert [vae.latent_frames(n) for n in (1, 5, 93, 1001)] == [1, 2, 24, 251]
    assert [vae.pixel_frames(n) for n in (1, 2, 24)] == [1, 5, 93]
    latent = vae.encode(video(9, batch=2))
    assert latent.shape == (2, 16, 3, 2, 3) and latent.dtype == torch.float32
    assert vae.decode(latent).shape == (2, 3, 9, 16, 24)
    for row in range(2):
        assert torch.equal(latent[row], vae.encode(video(9, batch=2)[row : row + 1])[0])


def test_an_image_is_the_first_frame_of_its_video(vae: WanVAE) -> None:
    whole = vae.encode(video(9))
    torch.testing.assert_close(vae.encode(video(9)[:, :, :1]), whole[:, :, :1])
    torch.testing.assert_close(vae.decode(whole[:, :, :1]), vae.decode(whole)[:, :, :1])


def test_length_does_not_grow_what_the_network_holds(vae: WanVAE) -> None:
    """Four pixel frames or one latent frame go through at once, however long the video is."""
    seen: list[int] = []
    hooks = [part.register_forward_pre_hook(lambda _, args: seen.append(args[0].shape[2]))
             for part in (vae.vae.encoder, vae.vae.decoder)]  # fmt: skip
    latent = vae.encode(video(33))
    assert max(seen) == 4
    seen.clear()
    vae.decode(latent)
    assert max(seen) == 1
    for hook in hooks:
        hook.remove()


def test_bfloat16_is_near_and_finite(folder: Path, vae: WanVAE) -> None:
    half = load_wan_vae(folder, dtype=torch.bfloat16)
    assert half.dtype == torch.bfloat16 and half.identity == vae.identity
    latent = half.encode(video())
    assert latent.dtype == torch.float32 and latent.isfinite().all()
    torch.testing.assert_close(latent, vae.encode(video()), rtol=0.05, atol=0.05)
    decoded = half.decode(latent)
    assert decoded.dtype == torch.float32 and decoded.isfinite().all()
    assert half.to(dtype=torch.float32).dtype == torch.float32


def test_identity_is_that_of_the_weights(folder: Path, vae: WanVAE, tmp_path: Path) -> None:
    assert vae.identity.name == vae.name == "Wan2.1-VAE"
    copy = load_wan_vae(folder, dtype=torch.bfloat16)
    copy.save_diffusers(tmp_path / "half")
    assert open_tokenizer(tmp_path / "half").identity == vae.identity
    other = save_tiny_wan_vae(tmp_path / "other", seed=1)
    assert open_tokenizer(other).identity != vae.identity
    settings = json.loads((folder / "config.json").read_text())
    settings["latents_std"][3] *= 2
    changed = write(tmp_path / "statistics", settings, load_file(folder / WEIGHTS))
    found = load_wan_vae(changed)
    assert found.identity != vae.identity
    with pytest.raises(InputError, match="latent statistics of its own"):
        found.save_original(tmp_path / "no")
    assert not (tmp_path / "no").exists()


def write(path: Path, settings: dict[str, Any], weights: dict[str, Tensor]) -> Path:
    path.mkdir()
    (path / "config.json").write_text(json.dumps(settings))
    save_file(weights, path / WEIGHTS)
    return path


@pytest.mark.parametrize(
    ("what", "words"),
    [
        (lambda v: video(10), "nearest legal 9 or 13"),
        (lambda v: video()[..., :20], "width 20 is not a multiple"),
        (lambda v: video() * 2, r"expects \[-1, 1\]"),
        (lambda v: (video() * 255).to(torch.uint8), "floating point"),
        (lambda v: video()[0], "expects"),
        (lambda v: video()[:0], "empty"),
    ],
)
def test_videos_that_do_not_fit(vae: WanVAE, what: Any, words: str) -> None:
    with pytest.raises(InputError, match=words):
        vae.encode(what(vae))


@pytest.mark.parametrize("shape", [(1, 8, 2, 2, 2), (16, 2, 2, 2), (1, 16, 0, 2, 2)])
def test_latents_that_do_not_fit(vae: WanVAE, shape: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match="latents of shape"):
        vae.decode(torch.zeros(shape))


class Runs:
    def __reduce__(self) -> Any:
        return print, ("ran",)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"a": Runs()}, "not unpickled|damaged"),
        ({"encoder": io.BytesIO(b"x"), "decoder": io.BytesIO(b"y")}, "tokenizer.pth: expected a state dict"),
        ({"net.x_embedder.proj.1.weight": torch.zeros(2, 2)}, "expected tensors such as encoder.downsamples"),
        ({"encoder.downsamples.900000000.resample.1.weight": torch.zeros(2)}, "not the weights of a Wan 2.1 VAE"),
        ([1, 2], "expected a state dict"),
        (None, "no such file|not a readable"),
    ],
)
def test_files_that_are_something_else(tmp_path: Path, content: Any, words: str) -> None:
    (tmp_path / "tokenizer").mkdir()
    file = tmp_path / "tokenizer" / "tokenizer.pth"
    if content is None:
        file.write_bytes(b"not torch's")
    else:
        torch.save(content, file)
    with pytest.raises(InputError, match=words) as caught:
        open_tokenizer(tmp_path)
    assert str(file) in str(caught.value) and "\n" not in str(caught.value)


def remove(weights: dict[str, Tensor]) -> None:
    del weights["decoder.head.2.bias"]


def add(weights: dict[str, Tensor]) -> None:
    weights["decoder.extra"] = torch.zeros(1)


def cut(weights: dict[str, Tensor]) -> None:
    weights["encoder.middle.1.proj.weight"] = torch.zeros(2, 2, 1, 1)


def flatten(weights: dict[str, Tensor]) -> None:
    weights["conv2.weight"] = torch.zeros(())


def quantise(weights: dict[str, Tensor]) -> None:
    weights["conv1.weight"] = weights["conv1.weight"].to(torch.int8)


def odd(weights: dict[str, Tensor]) -> None:
    weights["encoder.conv1.weight"] = torch.zeros(5, 3, 3, 3, 3)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (remove, "1 missing, such as decoder.conv_out.bias"),
        (add, "1 unknown, such as decoder.extra"),
        (cut, "1 misshapen, such as encoder.mid_block.attentions.0.proj.weight"),
        (flatten, "of another shape"),
        (quantise, "1 not floating point, such as quant_conv.weight"),
        (odd, "dim_mult"),
    ],
)
def test_weights_that_do_not_fit_are_named(tmp_path: Path, damage: Any, words: str) -> None:
    weights = synthetic_weights(4)
    damage(weights)
    torch.save(weights, tmp_path / "tokenizer.pth")
    with pytest.raises(InputError, match=words) as caught:
        open_tokenizer(tmp_path / "tokenizer.pth")
    assert "tokenizer.pth" in str(caught.value)


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("is_residual", True, "not a VAE of Wan 2.1"),
        ("patch_size", 2, "not a VAE of Wan 2.1"),
        ("latents_mean", [0.0] * 4, "4 latents_mean for 16 latent channels"),
        ("latents_std", [0.0] * 16, "latents_std"),
        ("latents_std", "ones", "latents_std"),
        ("latents_std", [None] * 16, "latents_std"),
        ("latents_mean", [float("nan")] * 16, "latents_mean"),
    ],
)
def test_settings_that_do_not_fit(folder: Path, tmp_path: Path, key: str, value: Any, words: str) -> None:
    settings = {**json.loads((folder / "config.json").read_text()), key: value}
    broken = write(tmp_path / "vae", settings, load_file(folder / WEIGHTS))
    with pytest.raises(InputError, match=words):
        open_tokenizer(broken)
