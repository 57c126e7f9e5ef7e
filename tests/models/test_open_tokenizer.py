"""What lies at a path is recognised, and what is none of the forms is named."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from nemo_cosmos.errors import InputError
from nemo_cosmos.models.tokenizer import CosmosTokenizer, build_tokenizer, load_tokenizer, save_tokenizer
from nemo_cosmos.models.video_tokenizer import VideoTokenizer, open_tokenizer
from nemo_cosmos.models.wan_vae import WanVAE
from tests.models.wan import save_tiny_wan_vae


@pytest.fixture(scope="module")
def cosmos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    module = build_tokenizer("CV4x8x8-360p", channels=8, num_res_blocks=1, chunk_frames=9)
    path = tmp_path_factory.mktemp("cosmos") / "tokenizer"
    return save_tokenizer(path, module, name="tiny", mean=torch.zeros(16, 3), std=torch.ones(16, 3))


@pytest.fixture(scope="module")
def wan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_wan_vae(tmp_path_factory.mktemp("wan") / "vae")


def test_a_cosmos_folder(cosmos: Path) -> None:
    tokenizer = open_tokenizer(cosmos)
    assert isinstance(tokenizer, CosmosTokenizer) and isinstance(tokenizer, VideoTokenizer)
    assert tokenizer.identity == load_tokenizer(cosmos).identity and tokenizer.chunk_frames == 9


def test_the_places_of_a_wan_vae(wan: Path, tmp_path: Path) -> None:
    """A folder of diffusers, a pipeline's, a released repository beside its network, and the file alone."""
    first = open_tokenizer(wan)
    assert isinstance(first, WanVAE) and isinstance(first, VideoTokenizer)
    shutil.copytree(wan, tmp_path / "pipeline" / "vae")
    (tmp_path / "pipeline" / "tokenizer").mkdir()
    (tmp_path / "pipeline" / "tokenizer" / "tokenizer_config.json").write_text("{}")
    repository = tmp_path / "Cosmos-Predict2-2B-Text2Image"
    first.save_original(repository / "tokenizer")
    (repository / "model.pt").write_bytes(b"a network")
    (repository / "config.json").write_text("{}")
    shutil.copytree(repository / "tokenizer", tmp_path / "plain")
    shutil.copyfile(repository / "tokenizer" / "tokenizer.pth", tmp_path / "Wan2.1_VAE.pth")
    shutil.copyfile(wan / "diffusion_pytorch_model.safetensors", tmp_path / "vae.safetensors")
    for place in (
        "pipeline",
        repository.name,
        "plain",
        "plain/tokenizer.pth",
        "Wan2.1_VAE.pth",
        "vae.safetensors",
        ".",
    ):
        assert open_tokenizer(tmp_path / place).identity == first.identity, place


@pytest.mark.parametrize("name", ["diffusion_pytorch_model.safetensors", "config.json"])
def test_damage_of_a_sealed_folder_is_seen(wan: Path, tmp_path: Path, name: str) -> None:
    open_tokenizer(wan).save_diffusers(tmp_path / "pipeline" / "vae")
    file = tmp_path / "pipeline" / "vae" / name
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 4
    file.write_bytes(content)
    for place in (file.parent, tmp_path / "pipeline"):
        with pytest.raises(InputError, match=f"^{file}: "):
            open_tokenizer(place)
    file.unlink()
    with pytest.raises(InputError, match=f"^{file}: missing"):
        open_tokenizer(file.parent)


def test_what_is_no_tokenizer_is_named(wan: Path, tmp_path: Path) -> None:
    def refused(path: Path, words: str) -> None:
        with pytest.raises(InputError, match=words) as caught:
            open_tokenizer(path)
        assert str(path) in str(caught.value)

    refused(tmp_path / "gone", "no such tokenizer folder")
    (tmp_path / "empty").mkdir()
    refused(tmp_path / "empty", "AutoencoderKLWan.*tokenizer.pth")
    for name in ("clip.mp4", "encoder.jit", "weights.pt"):
        torch.save({"some.weight": torch.zeros(1)}, tmp_path / name)
        refused(tmp_path / name, "no Wan VAE; expected")
    (tmp_path / "kl").mkdir()
    (tmp_path / "kl" / "config.json").write_text(json.dumps({"_class_name": "AutoencoderKL"}))
    refused(tmp_path / "kl", "class AutoencoderKL; expected")
    shutil.copytree(wan, tmp_path / "bare")
    (tmp_path / "bare" / "diffusion_pytorch_model.safetensors").unlink()
    refused(tmp_path / "bare", "no weights; expected diffusion_pytorch_model.safetensors")
    with pytest.raises(InputError, match="one kind of weights"):
        open_tokenizer(wan, regular=True)
