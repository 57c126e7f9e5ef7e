"""diffusers' pipelines of Cosmos 2.0 from a network, a Wan VAE and a text encoder, and back."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKLWan, Cosmos2TextToImagePipeline, Cosmos2VideoToWorldPipeline
from PIL import Image

from nemo_cosmos.checkpoint import load_network, network_config
from nemo_cosmos.checkpoint.convert import convert
from nemo_cosmos.checkpoint.files import save_tensors
from nemo_cosmos.checksums import verify
from nemo_cosmos.errors import InputError
from nemo_cosmos.models.dit import DiTConfig, build_dit
from nemo_cosmos.models.text import save_tiny_text_encoder
from tests.checkpoint.test_pipeline import SIZES, WIDTH, NoGuardrail

PRESETS = ["tiny-predict2-text2image", "tiny-predict2-video2world"]


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("parts")
    torch.manual_seed(0)
    AutoencoderKLWan(
        base_dim=8, z_dim=16, dim_mult=[1, 1, 1, 1], num_res_blocks=1, temperal_downsample=[False, True, True]
    ).save_pretrained(folder / "vae")
    save_tiny_text_encoder(folder / "text", width=WIDTH)
    for preset in [*PRESETS, "tiny-text2world"]:
        network = build_dit(DiTConfig.preset(preset, **SIZES), seed=1)
        save_tensors(folder / f"{preset}.pt", network.to_original())
    return folder


def make(parts: Path, target: Path, preset: str, vae: Path | None = None) -> Path:
    convert(
        parts / f"{preset}.pt", target, "pipeline", preset=preset, overrides=SIZES, vae=vae or parts / "vae",
        text_encoder=str(parts / "text"),
    )  # fmt: skip
    return target


@pytest.mark.usefixtures("nearest_resize")
def test_text_to_image(parts: Path, tmp_path: Path) -> None:
    target = make(parts, tmp_path / "pipeline", "tiny-predict2-text2image")
    pipeline = Cosmos2TextToImagePipeline.from_pretrained(target, safety_checker=NoGuardrail())
    pipeline.set_progress_bar_config(disable=True)
    images = pipeline(
        "a red disc", height=32, width=48, num_inference_steps=3, output_type="pt", max_sequence_length=32,
        generator=torch.Generator().manual_seed(0),
    ).images  # fmt: skip
    assert images.shape == (1, 3, 32, 48)
    assert torch.isfinite(images).all()


@pytest.mark.usefixtures("nearest_resize")
def test_video_to_world(parts: Path, tmp_path: Path) -> None:
    target = make(parts, tmp_path / "pipeline", "tiny-predict2-video2world")
    pipeline = Cosmos2VideoToWorldPipeline.from_pretrained(target, safety_checker=NoGuardrail())
    pipeline.set_progress_bar_config(disable=True)
    video = pipeline(
        Image.new("RGB", (48, 32), (200, 30, 30)), prompt="a red disc", height=32, width=48, num_frames=9, fps=24,
        num_inference_steps=3, output_type="pt", max_sequence_length=32, generator=torch.Generator().manual_seed(0),
    ).frames  # fmt: skip
    assert video.shape == (1, 9, 3, 32, 48)
    assert torch.isfinite(torch.as_tensor(video)).all()
    # The released schedule: Karras' from 80 down to 0.002, then once more the last.
    sigmas = pipeline.scheduler.sigmas
    assert sigmas[0] == pytest.approx(80)
    assert sigmas[-2:].tolist() == pytest.approx([0.002, 0.002])


@pytest.mark.parametrize("preset", PRESETS)
def test_there_and_back(preset: str, parts: Path, tmp_path: Path) -> None:
    target = make(parts, tmp_path / "pipeline", preset)
    assert network_config(target) == DiTConfig.preset(preset, **SIZES)
    convert(target, tmp_path / "back.pt", "pt")
    found, expected = (torch.load(f, weights_only=True) for f in (tmp_path / "back.pt", parts / f"{preset}.pt"))
    assert found.keys() == expected.keys()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in found.items())
    loaded = dict(load_network(target).named_parameters())
    assert all(torch.equal(p, loaded[n]) for n, p in load_network(parts / f"{preset}.pt", preset=preset, **SIZES)
               .named_parameters())  # fmt: skip
    for file in (parts / "vae").iterdir():
        assert (target / "vae" / file.name).read_bytes() == file.read_bytes()
    assert all(verify(part) for part in target.iterdir() if part.is_dir())


def test_a_vae_that_does_not_fit(parts: Path, tmp_path: Path) -> None:
    def refused(vae: Path, message: str, preset: str = PRESETS[0]) -> None:
        with pytest.raises(InputError, match=message):
            make(parts, tmp_path / "pipeline", preset, vae)
        assert not (tmp_path / "pipeline").exists()
        assert not list(tmp_path.glob(".pipeline*"))

    refused(parts / "text", "needs a folder of AutoencoderKLWan")
    refused(tmp_path / "gone", "needs a folder of AutoencoderKLWan")
    vae = Path(shutil.copytree(parts / "vae", tmp_path / "vae"))
    settings = json.loads((vae / "config.json").read_text())
    (vae / "config.json").write_text(json.dumps({**settings, "z_dim": 48}))
    refused(vae, "latents of 48 channels, the network takes 16")
    (vae / "config.json").write_text(json.dumps(settings))
    weights = vae / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    refused(vae, "diffusion_pytorch_model.safetensors: not a readable safetensors file")
    weights.unlink()
    refused(vae, r"no diffusion_pytorch_model\.safetensors")
    refused(parts / "vae", "AutoencoderKLWan", "tiny-text2world")


def test_families_are_not_mistaken(parts: Path, tmp_path: Path) -> None:
    target = make(parts, tmp_path / "pipeline", "tiny-predict2-video2world")
    index, settings = target / "model_index.json", target / "transformer" / "config.json"
    whole, network = json.loads(index.read_text()), json.loads(settings.read_text())
    wrong = ("CosmosVideoToWorldPipeline", "Cosmos2TextToImagePipeline", "Cosmos2_5_PredictBasePipeline", None, [1])
    for name in wrong:
        index.write_text(json.dumps({**whole, "_class_name": name}))
        with pytest.raises(InputError, match=r"model_index\.json: found the pipeline .* it is Cosmos2VideoToWorld"):
            network_config(target)
    assert network_config(target / "transformer").family == "predict2"
    index.write_text(json.dumps(whole))
    del network["extra_pos_embed_type"]  # Then the class has learnable tables.
    settings.write_text(json.dumps(network))
    with pytest.raises(InputError, match=r"found the pipeline 'Cosmos2VideoToWorldPipeline'.* one of predict1"):
        network_config(target)
    for change in ({"extra_pos_embed_type": "sincos"}, {"extra_pos_embed_type": ["learnable"]},
                   {"use_crossattn_projection": True}, {"controlnet_block_every_n": 7}):  # fmt: skip
        settings.write_text(json.dumps({"extra_pos_embed_type": None, **network, **change}))
        with pytest.raises(InputError, match=f"transformer/config.json.*{next(iter(change))}"):
            network_config(target)


@pytest.mark.parametrize(
    ("preset", "change"),
    [("tiny-predict2-text2image", {"rope_uses_fps": True}), ("tiny-text2world", {"position_embedding": "none"}),
     ("tiny-text2world", {"position_embedding": "sincos"}), ("tiny-text2world", {"rope_uses_fps": False}),
     ("tiny-text2world", {"in_channels": 8})],
)  # fmt: skip
def test_networks_that_would_be_read_back_as_others(preset: str, change: dict, tmp_path: Path) -> None:
    sizes = {**SIZES, **change}
    save_tensors(tmp_path / "model.pt", build_dit(DiTConfig.preset(preset, **sizes), seed=1).to_original())
    with pytest.raises(InputError, match=f"cannot say that a network of predict[12] has {next(iter(change))}="):
        convert(tmp_path / "model.pt", tmp_path / "transformer", "diffusers", preset=preset, overrides=sizes)
    assert not (tmp_path / "transformer").exists()
