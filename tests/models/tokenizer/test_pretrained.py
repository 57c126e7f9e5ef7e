"""Tokenizer folders, normalised latents and released key layouts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from nemo_cosmos.errors import InputError
from nemo_cosmos.models.tokenizer import VideoTokenizer, build_tokenizer, load_tokenizer, save_tokenizer
from nemo_cosmos.models.tokenizer.latent_stats import cv8x8x8_statistics
from nemo_cosmos.models.tokenizer.state_dict import infer_config, normalise_keys

from .golden import fill_parameters, hash_tensor

TINY = {"channels": 4, "channels_mult": (1, 2, 2), "num_res_blocks": 1}


def tiny(preset: str = "CV4x8x8-360p", **overrides):
    module = build_tokenizer(preset, **{**TINY, **overrides}).eval()
    fill_parameters(module)
    return module


def statistics(positions: int, channels: int = 16) -> tuple[torch.Tensor, torch.Tensor]:
    return hash_tensor((channels, positions), 1), hash_tensor((channels, positions), 2).abs() + 0.5


@pytest.mark.parametrize("name", ["CV8x8x8-720p", "DV4x8x8-360p"])
def test_folder_round_trip(tmp_path: Path, name: str) -> None:
    module = tiny(name, chunk_frames=9)
    mean, std = statistics(module.config.chunk_latent_frames, module.config.latent_channels)
    folder = save_tokenizer(tmp_path / "tok", module, name="mine", mean=mean, std=std)
    assert [p.name for p in tmp_path.iterdir()] == ["tok"]
    loaded = load_tokenizer(folder)
    assert loaded.name == loaded.identity.name == "mine"
    assert loaded.identity == VideoTokenizer(tiny(name, chunk_frames=9, name="mine"), mean=mean, std=std).identity
    assert loaded.chunk_frames == 9
    for key, value in module.to_original().items():
        assert torch.equal(value, loaded.module.to_original()[key]), key
    video = hash_tensor((2, 3, 9, 16, 24), 4, 0.5).clamp(-1, 1)
    raw = module.encode(video)
    raw = raw if isinstance(raw, torch.Tensor) else raw[1]
    expected = (raw - mean.view(1, -1, raw.shape[2], 1, 1)) / std.view(1, -1, raw.shape[2], 1, 1)
    torch.testing.assert_close(loaded.encode(video), expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(loaded.decode(expected), module.decode_codes(raw).detach(), rtol=1e-4, atol=1e-4)


def test_identity_depends_on_weights_and_statistics(tmp_path: Path) -> None:
    module = tiny(chunk_frames=9)
    mean, std = statistics(3)
    digests = [VideoTokenizer(module, mean=mean, std=std).identity.sha256]
    digests.append(VideoTokenizer(module, mean=mean, std=std * 2).identity.sha256)
    with torch.no_grad():
        module.quant_conv.conv3d.bias[0] += 1
    digests.append(VideoTokenizer(module, mean=mean, std=std).identity.sha256)
    assert len(set(digests)) == 3
    folder = save_tokenizer(tmp_path / "bf16", module.to(torch.bfloat16), name=module.config.name, mean=mean, std=std)
    assert load_tokenizer(folder).identity == load_tokenizer(folder, dtype=torch.bfloat16).identity


def test_chunks_are_folded(tmp_path: Path) -> None:
    tokenizer = VideoTokenizer(tiny(chunk_frames=5), mean=statistics(2)[0], std=statistics(2)[1])
    video = hash_tensor((2, 3, 15, 16, 16), 4, 0.5)
    latent = tokenizer.encode(video)
    assert latent.shape == (2, 16, 6, 2, 2)
    for i in range(3):
        part = tokenizer.encode(video[:, :, 5 * i : 5 * i + 5])
        torch.testing.assert_close(latent[:, :, 2 * i : 2 * i + 2], part)
    assert tokenizer.decode(latent).shape == video.shape
    torch.testing.assert_close(tokenizer.decode(latent)[:, :, 5:10], tokenizer.decode(latent[:, :, 2:4]))


def test_frame_counts_of_the_released_tokenizer() -> None:
    tokenizer = VideoTokenizer(tiny("CV8x8x8-720p"))
    counts = {n: tokenizer.latent_frames(n) for n in (1, 9, 57, 121, 242)}
    assert counts == {1: 1, 9: 2, 57: 8, 121: 16, 242: 32}
    assert all(tokenizer.pixel_frames(t) == n for n, t in counts.items())
    with pytest.raises(InputError, match="nearest legal 57 or 65"):
        tokenizer.latent_frames(60)
    with pytest.raises(InputError, match="nearest legal 121 or 242"):
        tokenizer.latent_frames(129)
    with pytest.raises(InputError, match="nearest legal 16 or 32"):
        tokenizer.pixel_frames(20)


def test_released_folder_layout(tmp_path: Path) -> None:
    """A training checkpoint under the released name, with a foreign config.json: its average, published statistics."""
    folder = tmp_path / "Cosmos-Tokenize1-CV8x8x8-720p"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"patch_size": 4, "whatever": [1]}))
    module = tiny("CV8x8x8-720p")
    parameters = dict(module.named_parameters())
    model = {f"network.{k}": v.detach().bfloat16() for k, v in parameters.items()}
    model |= {f"ema.network-{k.replace('.', '-')}": v.detach() + 1 for k, v in parameters.items()}
    torch.save({"model": model, "iteration": 7}, folder / "model.pt")
    tokenizer = load_tokenizer(folder)
    assert tokenizer.name == "CV8x8x8-720p" and tokenizer.module.config == module.config
    torch.testing.assert_close(tokenizer.mean, cv8x8x8_statistics()[0])
    for key, value in parameters.items():
        assert torch.equal(tokenizer.module.state_dict()[key], value + 1), key
    assert torch.equal(tokenizer.module.encoder.patcher3d.wavelets, module.encoder.patcher3d.wavelets)
    ema = normalise_keys(model, ema=True)
    assert set(ema) == set(parameters)
    torch.save((tokenizer.mean.reshape(-1) * 2, tokenizer.std.reshape(-1)), folder / "mean_std.pt")
    torch.testing.assert_close(load_tokenizer(folder).mean, tokenizer.mean * 2)


@pytest.mark.parametrize("name", ["CV8x8x8-720p", "CV4x8x8-360p", "DV8x16x16-720p", "DV4x8x8-360p"])
def test_configuration_is_read_off_the_weights(name: str) -> None:
    module = tiny(name)
    assert infer_config(module.to_original(), name=name) == module.config


def test_strict_loading_names_what_is_wrong() -> None:
    module = tiny()
    state = module.to_original()
    state["surprise"] = state.pop("quant_conv.conv3d.bias")
    with pytest.raises(InputError, match=r"missing: quant_conv.conv3d.bias.*unexpected: surprise"):
        tiny().load_original(state)
    report = tiny().load_original(state, strict=False)
    assert report.missing == ["quant_conv.conv3d.bias"] and report.unexpected == ["surprise"]
    state = tiny(latent_channels=8).to_original()
    with pytest.raises(InputError, match=r"quant_conv.conv3d.weight: file \(8, 16, 1, 1, 1\) model \(16, 16"):
        tiny().load_original(state)


def test_broken_folders(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such tokenizer folder"):
        load_tokenizer(tmp_path / "none")
    folder = tmp_path / "Cosmos-Tokenize1-CV8x8x8-720p"
    folder.mkdir()
    with pytest.raises(InputError, match=r"config\.json"):
        load_tokenizer(folder)
    (folder / "config.json").write_text("{}")
    with pytest.raises(InputError, match="no weights"):
        load_tokenizer(folder)
    torch.save(tiny("CV4x8x8-360p").to_original(), folder / "model.pt")
    with pytest.raises(InputError, match="weights are of another tokenizer"):
        load_tokenizer(folder)
    torch.save({"a": torch.zeros(1)}, folder / "model.pt")
    with pytest.raises(InputError, match="not the weights of a Cosmos video tokenizer"):
        load_tokenizer(folder)
    (folder / "model.pt").write_bytes(b"junk")
    with pytest.raises(InputError, match=r"model\.pt"):
        load_tokenizer(folder)


@pytest.mark.parametrize(
    "asked",
    [
        {"channels": 8192, "channels_mult": [64, 64, 64]},
        {"num_res_blocks": 64, "channels_mult": [1] * 64},
        {"discrete": True, "levels": [65536] * 4, "latent_channels": 4},
    ],
    ids=["wide", "deep", "codes"],
)
def test_no_memory_for_a_network_that_the_file_does_not_hold(tmp_path: Path, asked: dict) -> None:
    folder = save_tokenizer(tmp_path / "tok", tiny(), name="mine")
    (folder / "checksums.json").unlink()
    values = json.loads((folder / "config.json").read_text())
    values["config"].update(asked)
    (folder / "config.json").write_text(json.dumps(values))
    with pytest.raises(InputError, match=r"weights do not fit tokenizer mine|levels="):
        load_tokenizer(folder)


def test_legacy_mode_mismatch_is_said() -> None:
    legacy = tiny("CV8x8x8-720p", legacy_mode=True)
    with pytest.raises(InputError, match="set legacy_mode=True"):
        tiny("CV8x8x8-720p").load_original(legacy.to_original())
    with pytest.raises(InputError, match="set legacy_mode=False"):
        legacy.load_original(tiny("CV8x8x8-720p").to_original())
    assert infer_config(legacy.to_original(), name="CV8x8x8-720p").legacy_mode
    video = hash_tensor((1, 3, 9, 16, 16), 1, 0.5)
    assert legacy(video).reconstruction.shape == video.shape


def test_an_option_of_weights_that_fail_to_load_leaves_the_module_alone() -> None:
    module = tiny()
    before = {key: value.clone() for key, value in module.state_dict().items()}
    state = {key: value + 1 for key, value in module.to_original().items()}
    state.pop("quant_conv.conv3d.bias")
    with pytest.raises(InputError):
        module.load_original(state)
    assert all(torch.equal(before[key], value) for key, value in module.state_dict().items())
