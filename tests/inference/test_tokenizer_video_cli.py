"""Whole videos through a tokenizer: windows, padding, files of the command line."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from nemo_cosmos.data.video import probe, read_frames, write_mp4
from nemo_cosmos.errors import InputError
from nemo_cosmos.inference.tokenizer import TokenizerCodec, pad_window, resize_short_side
from nemo_cosmos.inference.video_cli import run
from nemo_cosmos.models.tokenizer import build_tokenizer
from nemo_cosmos.models.tokenizer.jit import export_jit

TINY = {"channels": 4, "channels_mult": (1, 2, 2), "num_res_blocks": 1, "z_channels": 16}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A 24-frame 50x70 clip and the TorchScript files of a continuous and a discrete tokenizer."""
    root = tmp_path_factory.mktemp("cli")
    frames = (torch.arange(24).view(1, 24, 1, 1) * 8 + torch.arange(70).view(1, 1, 1, 70)).clamp(0, 255)
    write_mp4(root / "clip.mp4", frames.expand(3, 24, 50, 70).to(torch.uint8), 12.0)
    for name in ("CV4x8x8-360p", "DV8x16x16-720p"):
        torch.manual_seed(0)
        (root / name).mkdir()
        parts = ("encoder", "decoder", "autoencoder")
        export_jit(build_tokenizer(name, **TINY), {p: root / name / f"{p}.jit" for p in parts})
    return root


def arguments(folder: Path, name: str, *extra: str) -> list[str]:
    return [
        "--video_pattern",
        str(folder / "*.mp4"),
        "--checkpoint_enc",
        str(folder / name / "encoder.jit"),
        "--checkpoint_dec",
        str(folder / name / "decoder.jit"),
        "--device",
        "cpu",
        "--dtype",
        "float32",
        *extra,
    ]


@pytest.mark.parametrize("count", [1, 7, 17])
@pytest.mark.parametrize("size", [(50, 70), (16, 32)])
def test_padding_is_cut_back_exactly(count: int, size: tuple[int, int]) -> None:
    frames = torch.randint(0, 256, (3, count, *size), dtype=torch.uint8)
    padded, crop = pad_window(frames)
    assert (padded.shape[1] - 1) % 8 == 0 and padded.shape[2] % 16 == 0 and padded.shape[3] % 16 == 0
    assert torch.equal(crop.apply(padded), frames)


def test_short_side() -> None:
    frames = torch.zeros(3, 2, 50, 70, dtype=torch.uint8)
    assert resize_short_side(frames, 24).shape == (3, 2, 24, 34)
    assert resize_short_side(frames.transpose(2, 3), 24).shape == (3, 2, 34, 24)


def test_files_beside_the_input(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (target,) = run(arguments(folder, "CV4x8x8-360p", "--psnr", "--save_input", "--output_fps", "8"))
    assert target == folder / "reconstructions" / "clip.mp4"
    info = probe(target)
    assert (info.frames, info.height, info.width, round(info.fps)) == (24, 50, 70, 8)
    assert (folder / "reconstructions" / "clip_input.mp4").is_file()
    assert "PSNR" in capsys.readouterr().out


def test_all_ways_of_running_agree(folder: Path) -> None:
    frames = read_frames(folder / "clip.mp4", 0, 20)
    for name in ("CV4x8x8-360p", "DV8x16x16-720p"):
        files = {part: folder / name / f"{part}.jit" for part in ("encoder", "decoder", "autoencoder")}
        ways = [
            TokenizerCodec.from_jit(encoder=files["encoder"], decoder=files["decoder"], dtype=torch.float32),
            TokenizerCodec.from_jit(full=files["autoencoder"], expected=name, dtype=torch.float32),
            TokenizerCodec.from_weights([files["encoder"], files["decoder"]], name=name, dtype=torch.float32),
        ]
        results = [codec.reconstruct(frames, 9) for codec in ways]
        assert results[0].shape == frames.shape and results[0].dtype == torch.uint8
        for other in results[1:]:
            assert (other.int() - results[0].int()).abs().max() <= 1


def test_mistakes_are_named(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no video matches"):
        run(["--video_pattern", str(tmp_path / "*.mp4"), "--checkpoint", "x"])
    with pytest.raises(InputError, match="no checkpoint"):
        run(["--video_pattern", str(folder / "*.mp4")])
    with pytest.raises(InputError, match="not a CV8x8x8-720p tokenizer"):
        run(arguments(folder, "CV4x8x8-360p", "--tokenizer_type", "CV8x8x8-720p"))
    (tmp_path / "junk.jit").write_bytes(b"junk")
    with pytest.raises(InputError, match="not a TorchScript file"):
        run([*arguments(folder, "CV4x8x8-360p"), "--checkpoint", str(tmp_path / "junk.jit")])
