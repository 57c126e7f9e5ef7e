"""TorchScript files: equal to the module, free in shape and dtype, readable as weights."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from nemo_cosmos.models.tokenizer import PRESETS, build_tokenizer, load_tokenizer
from nemo_cosmos.models.tokenizer.jit import export_jit
from tests.models.tokenizer.golden import fill_parameters, hash_tensor

SIZES = [(1, 32, 32), (9, 32, 48), (17, 48, 32), (25, 64, 64)]


def small(name: str):
    module = build_tokenizer(name, channels=8, channels_mult=(1, 2, 2), num_res_blocks=1, z_channels=16).eval()
    fill_parameters(module)
    return module


@pytest.mark.parametrize("name", list(PRESETS))
@torch.no_grad()
def test_scripted_parts_equal_the_module(name: str, tmp_path: Path) -> None:
    module = small(name)
    files = {part: tmp_path / f"{part}.jit" for part in ("encoder", "decoder", "autoencoder")}
    export_jit(module, files)
    encoder, decoder, full = (torch.jit.load(str(files[part])) for part in files)
    weight = decoder.state_dict()["decoder.conv_in.0.conv3d.weight"]
    assert weight.is_contiguous(memory_format=torch.channels_last_3d), "files keep the order that is fast"
    own = set(module.state_dict())
    assert set(full.state_dict()) == own
    assert set(encoder.state_dict()) == {k for k in own if k.startswith(("encoder.", "quant_conv.", "quantizer."))}
    for frames, height, width in SIZES:
        video = hash_tensor((1, 3, frames, height, width), frames, 0.5).clamp(-1, 1)
        answer, encoded = encoder(video), module.encode(video)
        if module.config.discrete:
            assert torch.equal(answer[0], encoded[0]) and torch.equal(answer[1], encoded[1])
        else:
            torch.testing.assert_close(answer[0], encoded, rtol=0, atol=1e-6)
            assert len(answer[1]) == 2
        expected = module(video).reconstruction
        scale = float(expected.abs().max())
        torch.testing.assert_close(decoder(answer[0]), expected, rtol=0, atol=1e-6 * scale)
        torch.testing.assert_close(full(video)[0], expected, rtol=0, atol=1e-6 * scale)


@pytest.mark.parametrize("name", ["CV8x8x8-720p", "DV4x8x8-360p"])
@torch.no_grad()
def test_bfloat16(name: str, tmp_path: Path) -> None:
    module = small(name).to(torch.bfloat16)
    export_jit(module, {"autoencoder": tmp_path / "a.jit"})
    full = torch.jit.load(str(tmp_path / "a.jit"))
    for frames in (9, 17):
        video = hash_tensor((1, 3, frames, 32, 32), 3, 0.5).clamp(-1, 1).bfloat16()
        out = full(video)[0]
        assert out.dtype == torch.bfloat16
        torch.testing.assert_close(out, module(video).reconstruction, rtol=0, atol=1e-6)


def test_files_run_without_the_package_and_load_as_weights(tmp_path: Path) -> None:
    folder = tmp_path / "Cosmos-Tokenize1-CV4x8x8-360p"
    folder.mkdir()
    module = small("CV4x8x8-360p")
    export_jit(module, {"encoder": folder / "encoder.jit", "decoder": folder / "decoder.jit"})
    code = (
        "import sys, torch; m = torch.jit.load(sys.argv[1]);"
        "z = m(torch.zeros(1, 3, 9, 32, 40))[0]; assert z.shape == (1, 16, 3, 4, 5), z.shape;"
        "assert 'nemo_cosmos' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code, str(folder / "encoder.jit")], check=True, cwd=tmp_path)
    (folder / "config.json").write_text("{}")
    with pytest.warns(UserWarning, match="no latent statistics"):
        loaded = load_tokenizer(folder)
    for key, value in module.state_dict().items():
        assert torch.equal(loaded.module.state_dict()[key], value), key
