"""Folders for diffusers reconstruct what the tokenizer does."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from nemo_cosmos.errors import InputError
from nemo_cosmos.models.tokenizer import VideoTokenizer, build_tokenizer
from nemo_cosmos.models.tokenizer.diffusers_export import export_diffusers
from tests.models.tokenizer.golden import fill_parameters, golden_video, hash_tensor


@pytest.mark.parametrize("name", ["CV8x8x8-720p", "CV4x8x8-360p"])
@torch.no_grad()
def test_exported_folder_equals_the_tokenizer(name: str, tmp_path: Path) -> None:
    diffusers = pytest.importorskip("diffusers")
    module = build_tokenizer(name, channels=8, num_res_blocks=1, chunk_frames=9)
    fill_parameters(module)
    positions = module.config.chunk_latent_frames
    mean, std = hash_tensor((16, positions), 3), hash_tensor((16, positions), 4).abs() + 0.5
    tokenizer = VideoTokenizer(module, mean=mean, std=std)
    folder = export_diffusers(tokenizer, tmp_path / "vae")
    peer = diffusers.AutoencoderKLCosmos.from_pretrained(folder).eval()
    video = golden_video()
    raw = peer.encode(video).latent_dist.mode()
    torch.testing.assert_close(raw, module.encode(video), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(peer.decode(raw).sample, module.decode(raw), rtol=1e-5, atol=1e-4)
    assert peer.config.latents_mean == pytest.approx(mean.flatten().tolist())


def test_discrete_tokenizers_are_refused(tmp_path: Path) -> None:
    module = build_tokenizer("DV8x16x16-720p", channels=4, num_res_blocks=1)
    with pytest.raises(InputError, match="is discrete"):
        export_diffusers(VideoTokenizer(module), tmp_path / "vae")
    assert not (tmp_path / "vae").exists()
