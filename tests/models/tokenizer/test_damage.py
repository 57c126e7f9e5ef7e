"""Damage to the files of a tokenizer is refused in one line that names the file."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from nemo_cosmos.checksums import verify
from nemo_cosmos.errors import InputError
from nemo_cosmos.models.tokenizer import build_tokenizer, load_tokenizer
from nemo_cosmos.models.tokenizer.diffusers_export import export_diffusers
from nemo_cosmos.models.tokenizer.jit import export_jit
from nemo_cosmos.models.tokenizer.pretrained import save_tokenizer, write_statistics
from nemo_cosmos.reconstruct.video_cli import run as video_cli
from nemo_cosmos.training.tokenizer.export import export
from tests.damage import DAMAGES, damage

TINY = {"channels": 4, "channels_mult": (1, 2, 2), "num_res_blocks": 1, "z_channels": 16}
STATISTICS = {"mean": torch.zeros(16, 13), "std": torch.ones(16, 13)}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    return save_tokenizer(tmp_path / "tokenizer", build_tokenizer("CV4x8x8-360p", **TINY), name="tiny", **STATISTICS)


@pytest.mark.parametrize("kind", DAMAGES)
@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "latent_stats.json"])
def test_a_folder(name: str, kind: str, folder: Path, tmp_path: Path) -> None:
    load_tokenizer(folder, verify_files="full")
    damage(folder / name, kind)
    for use in (load_tokenizer, lambda path: export(path, tmp_path / "out", form="folder")):
        with pytest.raises(InputError, match=f"^{folder / name}: .*expected"):
            use(folder)
    assert not (tmp_path / "out").exists()


def test_new_statistics_are_entered(folder: Path) -> None:
    write_statistics(folder, STATISTICS["mean"] + 1, STATISTICS["std"])
    assert verify(folder, "full")
    assert float(load_tokenizer(folder).mean.mean()) == 1


@pytest.fixture(scope="module")
def scripted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scripted")
    module = build_tokenizer("CV4x8x8-360p", **TINY)
    export_jit(module, {part: folder / f"{part}.jit" for part in ("encoder", "decoder")})
    (folder / "config.json").write_text("{}")
    return folder


@pytest.mark.parametrize("kind", [kind for kind in DAMAGES if kind != "gone"])
@pytest.mark.parametrize("part", ["encoder", "decoder"])
def test_torchscript(part: str, kind: str, scripted: Path, tmp_path: Path) -> None:
    shutil.copytree(scripted, tmp_path / "jit")
    file = tmp_path / "jit" / f"{part}.jit"
    assert verify(file, "full")
    damage(file, kind)
    halves = [
        "--checkpoint_enc",
        str(tmp_path / "jit/encoder.jit"),
        "--checkpoint_dec",
        str(tmp_path / "jit/decoder.jit"),
    ]
    for use in (
        lambda: load_tokenizer(tmp_path / "jit"),
        lambda: export(file, tmp_path / "out", form="folder"),
        lambda: video_cli(["--video_pattern", __file__, *halves, "--device", "cpu"]),
    ):
        with pytest.raises(InputError, match=f"^{file}: damaged, "):
            use()


def test_an_export_for_diffusers(folder: Path, tmp_path: Path) -> None:
    export_diffusers(load_tokenizer(folder), tmp_path / "vae")
    assert verify(tmp_path / "vae", "full")
    damage(tmp_path / "vae" / "diffusion_pytorch_model.safetensors", "flip")
    with pytest.raises(InputError, match=r"diffusion_pytorch_model\.safetensors: damaged"):
        verify(tmp_path / "vae", "full")
