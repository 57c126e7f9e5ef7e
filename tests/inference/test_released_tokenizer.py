"""Every command on a released tokenizer folder uses the averaged weights, and says which file it read."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from nemo_cosmos.cli import app
from nemo_cosmos.data.shards import ShardDataset
from nemo_cosmos.data.video import read_frames, write_mp4
from nemo_cosmos.errors import InputError
from nemo_cosmos.inference import known_flags, video_cli
from nemo_cosmos.models.dit import DiTConfig, build_dit
from nemo_cosmos.models.text import save_tiny_text_encoder
from nemo_cosmos.models.tokenizer import TokenizerModule, VideoTokenizer, load_tokenizer
from nemo_cosmos.reconstruct.codec import TokenizerCodec
from tests.models.tokenizer.released import released_folder

NAME = "CV8x8x8-720p"


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, TokenizerModule]:
    """A clip with its caption, a released tokenizer folder and a tiny text encoder; the averaged weights."""
    root = tmp_path_factory.mktemp("work")
    _, _, averaged = released_folder(root / "checkpoints", NAME, parts=("encoder", "decoder"))
    frames = (torch.arange(9).view(1, 9, 1, 1) * 12 + torch.arange(32).view(1, 1, 1, 32) * 4).clamp(0, 255)
    (root / "clips").mkdir()
    write_mp4(root / "clips" / "a.mp4", frames.expand(3, 9, 32, 32).to(torch.uint8), 8.0)
    (root / "clips" / "a.txt").write_text("a ramp")
    save_tiny_text_encoder(root / "text", width=1024)
    return root, averaged


def call(*words: object) -> str:
    """What a command prints; the log is a part of it."""
    result = CliRunner().invoke(app, [str(word) for word in words])
    if isinstance(result.exception, InputError):
        raise result.exception
    assert result.exit_code == 0, result.output
    return re.sub(r"\s+", " ", result.output)


def test_prepare_and_video_cli_agree(
    work: tuple[Path, TokenizerModule],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    root, averaged = work
    folder = root / "checkpoints" / f"Cosmos-Tokenize1-{NAME}"
    flags = ("--text-encoder", root / "text", "--frames", 9, "--size", "32x32", "--workers", 0, "--device", "cpu")
    said = call("prepare", root / "clips", tmp_path / "s", "--tokenizer", folder, *flags, "--latent-dtype", "float32")
    assert f"weights of {folder}/encoder.jit and {folder}/decoder.jit" in said
    latent = ShardDataset(tmp_path / "s")[0].latent
    tokenizer = load_tokenizer(folder)
    video = read_frames(root / "clips" / "a.mp4").float().unsqueeze(0) / 127.5 - 1.0
    codecs = [
        TokenizerCodec.from_jit(full=folder, dtype=torch.float32),
        TokenizerCodec.from_weights([folder], name=NAME, dtype=torch.float32),
    ]
    for codec in codecs:
        raw = codec.encode(video)[0]
        assert torch.equal(raw, averaged.encode(video))
        normalised = (raw - tokenizer.mean[None, :, :2, None, None]) / tokenizer.std[None, :, :2, None, None]
        torch.testing.assert_close(normalised[0], latent, rtol=0, atol=1e-5)
        assert torch.equal(tokenizer.module.encode(video), raw)
    for mode in ("jit", "torch"):
        words = ["--video_pattern", f"{root}/clips/*.mp4", "--checkpoint", str(folder), "--tokenizer_type", NAME]
        words += ["--mode", mode, "--device", "cpu", "--output_dir", str(tmp_path / mode)]
        monkeypatch.setattr(sys, "argv", ["video_cli", *words])
        video_cli.main()
        made = tmp_path / mode / "a.mp4"
        assert "encoder.jit and " in capsys.readouterr().err
        assert torch.equal(read_frames(made), read_frames(tmp_path / "jit" / "a.mp4"))


def test_video_cli_names_what_a_folder_lacks(work: tuple[Path, TokenizerModule], tmp_path: Path) -> None:
    root, _ = work
    with pytest.raises(InputError, match=r"no TorchScript files .*; --mode torch runs"):
        video_cli.run(["--video_pattern", f"{root}/clips/*.mp4", "--checkpoint", str(tmp_path), "--device", "cpu"])


def test_export_and_statistics(work: tuple[Path, TokenizerModule], tmp_path: Path) -> None:
    root, averaged = work
    folder = root / "checkpoints" / f"Cosmos-Tokenize1-{NAME}"
    assert "encoder.jit and" in call("tokenizer", "export", folder, tmp_path / "ema")
    assert f"regular weights of {folder}/model.pt" in call("tokenizer", "export", folder, tmp_path / "reg", "--reg")
    assert "averaged weights of" in call("tokenizer", "export", folder / "model.pt", tmp_path / "file", "--name", NAME)
    name = "quant_conv.conv3d.weight"
    expected = averaged.state_dict()[name]
    assert torch.equal(load_tokenizer(tmp_path / "ema").module.state_dict()[name], expected)
    assert torch.equal(load_tokenizer(tmp_path / "file").module.state_dict()[name], expected)
    assert not torch.equal(load_tokenizer(tmp_path / "reg").module.state_dict()[name], expected)


def test_the_example_script_decodes_with_them(
    work: tuple[Path, TokenizerModule], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    root, averaged = work
    network = root / "checkpoints" / "tiny"
    network.mkdir()
    config = DiTConfig.preset("tiny-video2world")
    state = build_dit(config).to_original()
    odd = {"net.blocks.block0.blocks.0.block.attn.to_q.1._extra_state": None}
    torch.save(state | odd | {f"net_ema.{k.removeprefix('net.')}": v for k, v in state.items()}, network / "model.pt")
    decoded: list[TokenizerModule] = []
    decode = VideoTokenizer.decode
    monkeypatch.setattr(VideoTokenizer, "decode", lambda self, z: (decoded.append(self.module), decode(self, z))[1])
    words = [
        "--checkpoint_dir", root / "checkpoints", "--diffusion_transformer_dir", "tiny", "--preset",
        "tiny-video2world", "--text_encoder_dir", root / "text", "--disable_prompt_upsampler", "--disable_guardrail",
        "--input_image_or_video_path", root / "clips" / "a.mp4", "--num_input_frames", "1", "--prompt", "a ramp",
        "--num_steps", "2", "--num_video_frames", "9", "--height", "32", "--width", "32",
        "--video_save_folder", root / "videos",
    ]  # fmt: skip
    arguments = known_flags.build_parser("Video2World", "").parse_args([str(word) for word in words])
    known_flags.run_script("Video2World", arguments)
    assert (root / "videos" / "output.mp4").is_file()
    expected = averaged.state_dict()["decoder.conv_out.0.conv3d.weight"]
    assert decoded and torch.equal(decoded[0].state_dict()["decoder.conv_out.0.conv3d.weight"], expected)
    said = capsys.readouterr().err
    assert "encoder.jit and " in said
    assert re.search(r"tiny/model.pt: averaged weights; \d+ tensors loaded, .* 1 _extra_state", said)
