"""Whole videos through a tokenizer: windows, padding, files of the command line."""

from __future__ import annotations

import weakref
from pathlib import Path

import av
import pytest
import torch

from nemo_cosmos.data.video import frames as frames_module
from nemo_cosmos.data.video import probe, read_frames, write_mp4
from nemo_cosmos.errors import InputError
from nemo_cosmos.models.tokenizer import build_tokenizer
from nemo_cosmos.models.tokenizer.jit import export_jit
from nemo_cosmos.models.tokenizer.metrics import psnr
from nemo_cosmos.reconstruct.codec import TokenizerCodec, resize_short_side
from nemo_cosmos.reconstruct.video_cli import run

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


def test_files_beside_the_input(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (target,) = run(arguments(folder, "CV4x8x8-360p", "--psnr", "--save_input", "--output_fps", "8"))
    assert target == folder / "reconstructions" / "clip.mp4"
    info = probe(target)
    assert (info.frames, info.height, info.width, round(info.fps)) == (24, 50, 70, 8)
    assert (folder / "reconstructions" / "clip_input.mp4").is_file()
    assert "PSNR" in capsys.readouterr().out


def test_streamed_files_equal_those_of_the_whole_video(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ("--short_size", "24", "--temporal_window", "9", "--output_fps", "8", "--save_input", "--psnr")
    (target,) = run(arguments(folder, "CV4x8x8-360p", *flags, "--output_dir", str(tmp_path / "out")))
    files = {part: folder / "CV4x8x8-360p" / f"{part}.jit" for part in ("encoder", "decoder")}
    codec = TokenizerCodec.from_jit(**files, dtype=torch.float32)
    frames = resize_short_side(read_frames(folder / "clip.mp4"), 24)
    output = codec.reconstruct(frames, 9)
    write_mp4(tmp_path / "clip.mp4", output, 8)
    write_mp4(tmp_path / "clip_input.mp4", frames, 8)
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["clip.mp4", "clip_input.mp4"]
    for name in ("clip.mp4", "clip_input.mp4"):
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / name).read_bytes()
    expected = psnr(*((clip[None].float() / 127.5 - 1.0) for clip in (frames, output))).item()
    assert capsys.readouterr().out == f"{target}  PSNR {expected:.2f} dB\n"


def test_no_more_than_a_window_is_in_memory(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At each window no later frame was asked of the decoder, and nothing of the windows before the last is alive."""
    write_mp4(tmp_path / "long.mp4", torch.zeros(3, 40, 16, 16, dtype=torch.uint8), 12.0)
    decoded, read = [], frames_module.shown
    monkeypatch.setattr(frames_module, "shown", lambda *a, **k: (decoded.append(f.time) or f for f in read(*a, **k)))
    held: list[weakref.ref[torch.Tensor]] = []
    asked, alive = [], []

    def reconstruct(self: TokenizerCodec, frames: torch.Tensor, window: int) -> torch.Tensor:
        asked.append(len(decoded))
        alive.append(sum(reference() is not None for reference in held))
        output = frames.clone()
        held.extend(weakref.ref(clip) for clip in (frames, output))
        return output

    monkeypatch.setattr(TokenizerCodec, "reconstruct", reconstruct)
    flags = arguments(folder, "CV4x8x8-360p", "--temporal_window", "8", "--psnr", "--save_input")
    run([*flags, "--video_pattern", str(tmp_path / "long.mp4")])
    assert asked == [8, 16, 24, 32, 40]
    assert max(alive) <= 2


@pytest.mark.parametrize(
    ("mode", "dtype", "whole"),
    [("jit", "float16", True), ("jit", "bfloat16", False), ("torch", "bfloat16", True), ("torch", None, False)],
)
def test_modes_dtypes_and_checkpoints(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: str, dtype: str | None, whole: bool
) -> None:
    """All give what the weights give in fp32, within the rounding of the type."""
    name, results, reconstruct = "CV4x8x8-360p", [], TokenizerCodec.reconstruct

    def record(self: TokenizerCodec, frames: torch.Tensor, window: int) -> torch.Tensor:
        results.append((self.dtype, reconstruct(self, frames, window)))
        return results[-1][1]

    monkeypatch.setattr(TokenizerCodec, "reconstruct", record)
    write_mp4(tmp_path / "short.mp4", read_frames(folder / "clip.mp4", 0, 5, (16, 32)), 12.0)
    flags = ["--video_pattern", str(tmp_path / "*.mp4"), "--device", "cpu", "--mode", mode]
    flags += ["--dtype", dtype] if dtype else []
    parts = {"--checkpoint": "autoencoder"}
    if not whole:
        parts = {"--checkpoint_enc": "encoder", "--checkpoint_dec": "decoder"}
    for flag, part in parts.items():
        flags += [flag, str(folder / name / f"{part}.jit")]
    run([*flags, "--tokenizer_type", name])
    codec = TokenizerCodec.from_weights([folder / name / "autoencoder.jit"], name=name, dtype=torch.float32)
    expected = reconstruct(codec, read_frames(tmp_path / "short.mp4"))
    ((used, result),) = results
    assert used == getattr(torch, dtype or "float32")
    assert (result.float() - expected.float()).abs().mean() < 2.0


def test_other_containers(folder: Path, tmp_path: Path) -> None:
    """WebM and GIF come out as mp4, containers of H.264 as they were; folders that the pattern matches are left."""
    for suffix, codec, pixels in (
        ("webm", "libvpx-vp9", "yuv420p"),
        ("gif", "gif", "rgb8"),
        ("mov", "mpeg4", "yuv420p"),
    ):
        with av.open(str(tmp_path / f"{suffix}_clip.{suffix}"), "w") as container:
            stream = container.add_stream(codec, rate=10)
            stream.width, stream.height, stream.pix_fmt = 32, 16, pixels
            for level in (0, 80, 160):
                image = torch.full((16, 32, 3), level, dtype=torch.uint8).numpy()
                container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24").reformat(format=pixels)))
            container.mux(stream.encode())
    (tmp_path / "reconstructions").mkdir()
    flags = arguments(folder, "CV4x8x8-360p", "--save_input", "--temporal_window", "2")
    for _ in range(2):
        targets = run([*flags, "--video_pattern", str(tmp_path / "*")])
        assert [t.name for t in targets] == ["gif_clip.mp4", "mov_clip.mov", "webm_clip.mp4"]
    for target in targets:
        assert probe(target).frames == 3
        levels = read_frames(target.with_name(f"{target.stem}_input{target.suffix}")).float().mean(dim=(0, 2, 3))
        assert (levels - torch.tensor([0.0, 80.0, 160.0])).abs().max() < 25  # GIF's fixed palette is coarse


def test_a_broken_video_leaves_no_file(folder: Path, tmp_path: Path) -> None:
    content = bytearray((folder / "clip.mp4").read_bytes())
    content[len(content) // 2 : len(content) // 2 + 600] = bytes(600)
    (tmp_path / "broken.mp4").write_bytes(content)
    flags = arguments(folder, "CV4x8x8-360p", "--save_input", "--temporal_window", "4")
    with pytest.raises(InputError, match=r"broken\.mp4"):
        run([*flags, "--video_pattern", str(tmp_path / "*.mp4")])
    assert not list((tmp_path / "reconstructions").iterdir())


def test_nothing_is_written_over(folder: Path, tmp_path: Path) -> None:
    flags = arguments(folder, "CV4x8x8-360p")
    with pytest.raises(InputError, match="would replace an input"):
        run([*flags, "--output_dir", str(folder)])
    for name in ("a/x.mp4", "b/x.mp4", "c/y.webm", "c/y.gif"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    for pattern in ("?/x.mp4", "c/*"):
        extra = ["--video_pattern", str(tmp_path / pattern), "--output_dir", str(tmp_path / "out")]
        with pytest.raises(InputError, match="would both be written to"):
            run([*flags, *extra])
    assert not (tmp_path / "out").exists()


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
    with pytest.raises(InputError, match="temporal window of 0 frames"):
        run(arguments(folder, "CV4x8x8-360p", "--temporal_window", "0"))
    with pytest.raises(InputError, match="fps=0"):
        run(arguments(folder, "CV4x8x8-360p", "--output_fps", "0"))
    (tmp_path / "junk.jit").write_bytes(b"junk")
    with pytest.raises(InputError, match="not a TorchScript file"):
        run([*arguments(folder, "CV4x8x8-360p"), "--checkpoint", str(tmp_path / "junk.jit")])


@pytest.mark.parametrize(
    ("encoder", "decoder", "message"),
    [
        ("CV4x8x8-360p/encoder", "CV8x8x8-720p/decoder", "are not the halves of one tokenizer"),
        ("CV8x8x8-720p/encoder", "CV4x8x8-360p/decoder", "are not the halves of one tokenizer"),
        ("CV4x8x8-360p/encoder", "DV8x16x16-720p/decoder", "are not the halves of one tokenizer"),
        ("DV8x16x16-720p/encoder", "CV4x8x8-360p/decoder", "a discrete and of a continuous tokenizer"),
        ("CV4x8x8-360p/decoder", "CV4x8x8-360p/encoder", r"decoder\.jit: expected the encoder's file alone"),
        ("CV4x8x8-360p/encoder", "CV4x8x8-360p/autoencoder", r"autoencoder\.jit: expected the decoder's file alone"),
    ],
)
def test_halves_that_do_not_belong_together(folder: Path, encoder: str, decoder: str, message: str) -> None:
    other = folder / "CV8x8x8-720p"
    if not other.exists():
        other.mkdir()
        export_jit(build_tokenizer(other.name, **TINY), {p: other / f"{p}.jit" for p in ("encoder", "decoder")})
    flags = ["--video_pattern", str(folder / "*.mp4"), "--device", "cpu"]
    files = ["--checkpoint_enc", str(folder / f"{encoder}.jit"), "--checkpoint_dec", str(folder / f"{decoder}.jit")]
    with pytest.raises(InputError, match=message):
        run([*flags, *files])


def test_a_device_that_does_not_exist_is_named(folder: Path) -> None:
    flags = ["--video_pattern", str(folder / "*.mp4"), "--checkpoint", str(folder), "--device", "gpu0"]
    with pytest.raises(InputError, match="--device 'gpu0': expected cuda, cuda:N or cpu"):
        run(flags)
