"""Videos through a Wan VAE: prepared, checked, shown, read online, and every verb that takes a tokenizer."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from nemo_cosmos.commands import tokenizer as tokenizer_verbs
from nemo_cosmos.commands.prepare import prepare
from nemo_cosmos.commands.preview import preview
from nemo_cosmos.commands.validate import validate
from nemo_cosmos.data.sample import collate
from nemo_cosmos.data.shards import ShardDataset
from nemo_cosmos.errors import InputError
from nemo_cosmos.models.text import save_tiny_text_encoder
from nemo_cosmos.models.tokenizer import build_tokenizer, save_tokenizer
from nemo_cosmos.models.video_tokenizer import open_tokenizer
from tests.interface.verbs import command
from tests.models.wan import save_tiny_wan_vae
from tests.training.clips import add_clip


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two clips of 15 frames, a tiny Wan VAE in both forms, a tiny text encoder."""
    path = tmp_path_factory.mktemp("wan")
    for seed, name in enumerate(("one", "two")):
        add_clip(path / "clips", name, seed=seed, frames=15)
    save_tiny_wan_vae(path / "vae")
    command(tokenizer_verbs.export, path / "vae", path / "repository" / "tokenizer")
    save_tiny_text_encoder(path / "text", width=16)
    return path


@pytest.fixture(scope="module")
def shards(work: Path) -> Path:
    prepare_with(work, "vae", work / "shards")
    return work / "shards"


def prepare_with(work: Path, tokenizer: str, out: Path, *more: Any) -> None:
    models = ("--tokenizer", work / tokenizer, "--text-encoder", work / "text")
    command(prepare, work / "clips", out, *models, "--frames", 13, "--size", "32x48", "--workers", 0, *more)


def test_shards_know_the_vae(work: Path, shards: Path) -> None:
    dataset = ShardDataset(shards)
    vae = open_tokenizer(work / "vae")
    assert dataset.manifest.tokenizer == vae.identity and dataset.manifest.tokenizer.name == "Wan2.1-VAE"
    assert dataset.manifest.tokenizer.temporal_compression == 4
    assert dataset[0].latent.shape == (16, 4, 4, 6) and dataset[0].num_frames == 13


def test_the_original_file_makes_the_same_shards(work: Path, shards: Path, tmp_path: Path) -> None:
    assert (work / "repository" / "tokenizer" / "tokenizer.pth").is_file()
    prepare_with(work, "repository", tmp_path / "again")
    first, second = ShardDataset(shards), ShardDataset(tmp_path / "again")
    assert second.manifest.tokenizer == first.manifest.tokenizer
    for one, two in zip(first, second, strict=True):
        assert torch.equal(one.latent, two.latent)
    prepare_with(work, "repository/tokenizer/tokenizer.pth", shards)  # Nothing is left to do, and nothing differs.


def test_any_length_and_single_frames(work: Path, tmp_path: Path) -> None:
    prepare_with(work, "vae", tmp_path / "images", "--frames", 1)
    assert ShardDataset(tmp_path / "images")[0].latent.shape == (16, 1, 4, 6)
    with pytest.raises(InputError, match="nearest legal 9 or 13"):
        prepare_with(work, "vae", tmp_path / "wrong", "--frames", 12)
    with pytest.raises(InputError, match="multiples of 16"):
        prepare_with(work, "vae", tmp_path / "wrong", "--size", "24x48")
    assert not (tmp_path / "wrong").exists()


def test_validate_and_preview(work: Path, shards: Path, tmp_path: Path) -> None:
    command(validate, shards)
    command(preview, shards, "--tokenizer", work / "repository", "--out", tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    assert "Wan2.1-VAE" in page and "= latent x 1;" in page
    with pytest.raises(InputError, match="Wan2"):
        command(preview, shards, "--tokenizer", save_tiny_wan_vae(tmp_path / "other", seed=1))


def test_online_gives_what_prepare_stores(work: Path, shards: Path) -> None:
    from nemo_cosmos.config import DataConfig
    from nemo_cosmos.training.online import open_clips

    data = DataConfig(
        mode="online", path=str(work / "clips"), tokenizer_path=str(work / "repository"), num_frames=13, size=[32, 48],
        text_encoder=str(work / "text"), text_length=8,
    )  # fmt: skip
    clips, encoder = open_clips(data)
    assert encoder.latent_shape(clips.plan) == (16, 4, 4, 6)
    batch = encoder.encode([(0, clips[0])], partial(collate, text_length=8))
    stored = ShardDataset(shards)[0].latent
    torch.testing.assert_close(batch.latent[0].to(stored.dtype), stored)


def test_export_goes_both_ways(work: Path, tmp_path: Path) -> None:
    file = work / "repository" / "tokenizer" / "tokenizer.pth"
    command(tokenizer_verbs.export, file, tmp_path / "vae", "--format", "diffusers")
    assert json.loads((tmp_path / "vae" / "config.json").read_text())["_class_name"] == "AutoencoderKLWan"
    assert open_tokenizer(tmp_path / "vae").identity == open_tokenizer(file).identity
    with pytest.raises(InputError, match="no TorchScript form"):
        command(tokenizer_verbs.export, file, tmp_path / "jit", "--format", "jit")
    with pytest.raises(InputError, match="one kind of weights"):
        command(tokenizer_verbs.export, file, tmp_path / "jit", "--reg")
    assert not (tmp_path / "jit").exists()


def test_statistics_are_not_measured_again(work: Path) -> None:
    with pytest.raises(InputError, match="belong to its weights"):
        command(tokenizer_verbs.stats, "--tokenizer", work / "vae", "--videos", work / "clips/videos/*.mp4")
    assert not (work / "vae" / "latent_stats.json").exists()


def test_reconstruction(work: Path, tmp_path: Path) -> None:
    from nemo_cosmos.data.video import probe
    from nemo_cosmos.reconstruct.video_cli import run

    video = work / "clips" / "videos" / "one.mp4"
    flags = ["--video_pattern", str(video), "--output_dir", str(tmp_path), "--device", "cpu", "--tokenizer_type"]
    [written] = run([*flags, "Wan2.1-VAE", "--mode", "torch", "--checkpoint", str(work / "repository")])
    assert probe(written).frames == probe(video).frames
    with pytest.raises(InputError, match="add --mode torch"):
        run([*flags, "Wan2.1-VAE", "--checkpoint", str(work / "repository")])
    module = build_tokenizer("CV4x8x8-360p", channels=4, num_res_blocks=1)
    save_tokenizer(tmp_path / "cosmos", module, name="tiny")
    with pytest.raises(InputError, match="not a Wan2"):
        run([*flags, "Wan2.1-VAE", "--mode", "torch", "--checkpoint", str(tmp_path / "cosmos")])
