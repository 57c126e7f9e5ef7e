"""Tokenizer training end to end on tiny clips: it learns, resumes exactly, and agrees over processes."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from nemo_cosmos.config import dump_config, experiment_names, load_config
from nemo_cosmos.data.video import write_mp4
from nemo_cosmos.errors import InputError
from nemo_cosmos.models.tokenizer import TokenizerConfig, build_tokenizer, load_tokenizer
from nemo_cosmos.training.tokenizer.checkpoint import latest_checkpoint, load_weights, read_checkpoint, save_checkpoint
from nemo_cosmos.training.tokenizer.config import TokenizerTrainConfig
from nemo_cosmos.training.tokenizer.raft import RaftLarge
from nemo_cosmos.training.tokenizer.trainer import TokenizerTrainer, train

TINY = "model.overrides={channels:4,channels_mult:[1,2,2],num_res_blocks:1,chunk_frames:5}"


ALL_TERMS = (
    "loss.perceptual.enabled=true",
    "loss.perceptual.weights=random",
    "loss.perceptual.gram.enabled=true",
    "loss.perceptual.gram.boundaries=[0]",
    "loss.perceptual.gram.values=[0.05]",
    "loss.flow.enabled=true",
    "loss.flow.boundaries=[0]",
    "loss.flow.values=[0.01]",
    "loss.video_consistency.enabled=true",
    "loss.video_consistency.boundaries=[0]",
    "loss.video_consistency.values=[0.1]",
    "loss.video_consistency.num_frames=5",
    "loss.adversarial.enabled=true",
    "loss.adversarial.boundaries=[0]",
    "loss.adversarial.values=[0.1]",
    "loss.adversarial.channels=4",
    "loss.adversarial.feature_matching=1.0",
)


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six 32x48 clips of 12 frames: coloured squares that move."""
    folder = tmp_path_factory.mktemp("clips")
    for i in range(6):
        video = torch.full((3, 12, 32, 48), 40 + 30 * i, dtype=torch.uint8)
        for t in range(12):
            video[i % 3, t, 8:20, 4 + 2 * t : 16 + 2 * t] = 230
        write_mp4(folder / f"{i}.mp4", video, 8.0)
    return folder


def configure(clips: Path, out: Path, *overrides: str) -> TokenizerTrainConfig:
    return load_config(
        TokenizerTrainConfig,
        [
            "experiment=demo_tokenizer",
            f"data.train={clips}/*.mp4",
            f"data.val={clips}/[01].mp4",
            f"output_dir={out}",
            "model.preset=CV4x8x8-360p",
            "trainer.device=cpu",
            TINY,
            "data.num_frames=5",
            "data.crop=[16,16]",
            "data.num_workers=0",
            "data.global_batch=2",
            "data.micro_batch=1",
            "trainer.max_steps=4",
            "trainer.log_every_n_steps=1",
            "checkpoint.every_n_steps=2",
            "checkpoint.keep=3",
            "checkpoint.statistics_clips=4",
            # Adam's first steps are lr * sign(gradient): a large eps keeps rounding noise from deciding signs.
            "optimizer.eps=1e-3",
            *overrides,
        ],
        root="tokenizer_train",
    )


def records(out: Path) -> list[dict]:
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


def weights(out: Path, step: int) -> dict[str, torch.Tensor]:
    return read_checkpoint(out / "checkpoints" / f"iter_{step:09d}.pt")["model"]


@pytest.mark.parametrize(("asked", "used"), [("auto", "fp32"), ("bf16", "bf16")])
def test_precision_on_cpu(clips: Path, tmp_path: Path, asked: str, used: str) -> None:
    trainer = TokenizerTrainer(configure(clips, tmp_path, f"trainer.precision={asked}"))
    assert trainer.precision == used
    assert trainer.validator is not None and trainer.validator.precision == used


def test_resume_continues_exactly(clips: Path, tmp_path: Path) -> None:
    """Four steps at once equal two, an interruption, and two more that keep what they decode, bit for bit."""
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    folder = train(configure(clips, whole, "checkpoint.export_jit=true"))
    train(configure(clips, parts, "trainer.max_steps=2"))
    train(configure(clips, parts, f"data.decoded={tmp_path}/decoded"))
    assert list((tmp_path / "decoded").iterdir())
    first, second = weights(whole, 4), weights(parts, 4)
    for key, value in first.items():
        assert torch.equal(value, second[key]), key
    wanted = ("step", "loss", "psnr", "lr", "grad_norm")
    assert [[r[k] for k in wanted] for r in records(whole)[1:]] == [[r[k] for k in wanted] for r in records(parts)[1:]]
    wanted = ("seconds", "data_wait_seconds", "memory_bytes", "loss_color", "loss_color_weighted")
    assert set(wanted) <= set(records(whole)[1])
    names = {p.name for p in (whole / "checkpoints").iterdir()}
    assert names == {"latest_checkpoint.txt"} | {
        f"iter_00000000{n}{suffix}{manifest}"
        for n in (2, 4)
        for suffix in (".pt", "_enc.jit", "_dec.jit", "_ema.jit")
        for manifest in ("", ".checksums.json")
    }
    with pytest.raises(InputError, match="already holds iter_000000004"):
        TokenizerTrainer(configure(clips, whole, "resume=false"))
    fewer = f"data.train={clips}/0.mp4"
    with pytest.raises(InputError, match=r"the data is now .*0\.mp4 .*data\.allow_change=true"):
        TokenizerTrainer(configure(clips, whole, fewer))
    assert TokenizerTrainer(configure(clips, whole, fewer, "data.allow_change=true")).step == 4

    tokenizer = load_tokenizer(folder)
    assert tokenizer.has_statistics and tokenizer.chunk_frames == 5 and tokenizer.name == "demo-CV4x8x8"
    ema = load_weights(tokenizer.module, whole / "checkpoints" / "iter_000000004.pt", ema=True)
    assert load_tokenizer(folder).identity == tokenizer.identity
    assert torch.equal(ema["quant_conv.conv3d.bias"], load_tokenizer(folder).module.quant_conv.conv3d.bias)
    full = torch.jit.load(str(whole / "checkpoints" / "iter_000000004_ema.jit"))
    video = torch.rand(1, 3, 9, 24, 32) * 2 - 1
    torch.testing.assert_close(full(video)[0], load_tokenizer(folder).module(video).reconstruction, rtol=0, atol=1e-6)


def test_a_small_run_learns(clips: Path, tmp_path: Path) -> None:
    train(
        configure(
            clips,
            tmp_path / "run",
            "trainer.max_steps=40",
            "trainer.log_every_n_steps=20",
            "checkpoint.every_n_steps=40",
            "optimizer.lr=3e-3",
            "optimizer.warmup_steps=5",
            "optimizer.decay_steps=40",
            "optimizer.eps=1e-8",
            "model.overrides={channels:8,channels_mult:[1,2],num_res_blocks:1,chunk_frames:5,patch_size:4}",
        )
    )
    lines = records(tmp_path / "run")
    assert lines[-1]["validation_psnr"] > lines[0]["validation_psnr"] + 6.0


def train_in_two_processes(config: TokenizerTrainConfig, folder: Path) -> None:
    (folder / "two.py").write_text(
        "import sys\n"
        "from nemo_cosmos.training.tokenizer.config import TokenizerTrainConfig\n"
        "from nemo_cosmos.training.tokenizer.trainer import train\n"
        "from nemo_cosmos.config import read_config\n"
        "if __name__ == '__main__':\n"
        "    train(read_config(TokenizerTrainConfig, sys.argv[1]))\n"
    )
    (folder / "two.yaml").write_text(dump_config(config))
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        port = server.getsockname()[1]
    processes = []
    for rank in range(2):
        env = os.environ | {
            "RANK": str(rank),
            "LOCAL_RANK": str(rank),
            "WORLD_SIZE": "2",
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port),
            "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[3]), os.environ.get("PYTHONPATH", "")]),
            "OMP_NUM_THREADS": "1",
        }
        command = [sys.executable, "-W", "ignore", str(folder / "two.py"), str(folder / "two.yaml")]
        processes.append(subprocess.Popen(command, env=env, stderr=subprocess.PIPE, text=True))
    for process in processes:
        _, errors = process.communicate(timeout=300)
        assert process.returncode == 0, errors[-2000:]


@pytest.mark.parametrize("overrides", [(), ("data.num_frames=9", "data.crop=[32,32]", *ALL_TERMS)], ids=["L1", "all"])
def test_two_processes_equal_one(clips: Path, tmp_path: Path, overrides: tuple[str, ...]) -> None:
    """Same clips, same global batch: one process with accumulation and two processes give the same weights."""
    train(configure(clips, tmp_path / "one", "trainer.max_steps=2", *overrides))
    train_in_two_processes(configure(clips, tmp_path / "two", "trainer.max_steps=2", *overrides), tmp_path)
    one, two = weights(tmp_path / "one", 2), weights(tmp_path / "two", 2)
    for key, value in one.items():
        torch.testing.assert_close(two[key], value, rtol=1e-4, atol=1e-6)
    losses = [[r["loss"] for r in records(tmp_path / name)[1:]] for name in ("one", "two")]
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
def test_two_gpus_equal_one(clips: Path, tmp_path: Path) -> None:
    """Compiled, in bf16, with blocks beyond a gradient bucket of 1 MiB."""
    wide = (
        "trainer.device=cuda",
        "trainer.precision=bf16",
        "model.overrides={channels:64,channels_mult:[2,2,2],num_res_blocks:1,chunk_frames:5}",
    )
    train(configure(clips, tmp_path / "one", *wide))
    train_in_two_processes(configure(clips, tmp_path / "two", *wide), tmp_path)
    losses = [[r["loss"] for r in records(tmp_path / name) if "loss" in r] for name in ("one", "two")]
    assert len(losses[0]) == 4
    assert losses[1] == pytest.approx(losses[0], rel=1e-2)


def test_all_terms_and_a_discrete_tokenizer(clips: Path, tmp_path: Path) -> None:
    out = tmp_path / "all"
    train(
        configure(
            clips,
            out,
            "model.preset=DV4x8x8-360p",
            "model.overrides={channels:4,channels_mult:[1,2,2],num_res_blocks:1,z_channels:16,chunk_frames:9}",
            "data.num_frames=9",
            "data.crop=[32,32]",
            "trainer.max_steps=2",
            *ALL_TERMS,
            "trainer.activation_checkpointing=true",
        )
    )
    last = records(out)[-1]
    terms = ("color", "perceptual", "gram", "flow", "video_consistency", "adversarial")
    assert last["loss"] == pytest.approx(sum(last[f"loss_{t}_weighted"] for t in terms), rel=1e-5)
    assert {"code_usage", "perplexity", "validation_code_usage", "validation_ssim_ema", "loss_discriminator"} <= set(
        last
    )
    assert "discriminator" in read_checkpoint(out / "checkpoints" / "iter_000000002.pt")
    events = b"".join(p.read_bytes() for p in (out / "tensorboard").iterdir())
    assert b"validation/input_reconstruction" in events and b"GIF89a" in events


def test_post_training_starts_from_given_weights(clips: Path, tmp_path: Path) -> None:
    folder = train(configure(clips, tmp_path / "first", "trainer.max_steps=2"))
    start = TokenizerTrainer(configure(clips, tmp_path / "second", f"model.init_from={folder}"))
    assert torch.equal(start.module.quant_conv.conv3d.bias, load_tokenizer(folder).module.quant_conv.conv3d.bias)
    file = tmp_path / "first" / "checkpoints" / "iter_000000002.pt"
    state = ("model.load_training_state=true", f"model.init_from={file}")
    assert TokenizerTrainer(configure(clips, tmp_path / "third", *state)).step == 2
    with pytest.raises(InputError, match="weights do not fit"):
        TokenizerTrainer(configure(clips, tmp_path / "fourth", "model.preset=DV4x8x8-360p", f"model.init_from={file}"))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("data.train=/nowhere/*.mp4", "no video matches"),
        ("data.train=nowhere_video720", "unknown video dataset"),
        ("data.num_frames=6", "nearest legal 5 or 9"),
        ("data.crop=[20,16]", "nearest legal 16 or 24"),
        ("data.num_frames=13", "has data.num_frames=13"),
        ("data.global_batch=3", "not a multiple"),
        ("data.resolution=700", "expected one of 256"),
        ("model.overrides={chunk_frames:121}", "set model.overrides.chunk_frames=5"),
        ("model.init_from=/none", "no such tokenizer"),
    ],
)
def test_wrong_settings_stop_before_training(clips: Path, tmp_path: Path, override: str, message: str) -> None:
    extra = ("data.micro_batch=2",) if "global_batch" in override else ()
    with pytest.raises(InputError, match=message):
        train(configure(clips, tmp_path / "run", override, *extra))
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_validation_videos_too_short_are_named(clips: Path, tmp_path: Path) -> None:
    file = tmp_path / "short.mp4"
    write_mp4(file, torch.zeros(3, 3, 32, 48, dtype=torch.uint8), 8.0)
    with pytest.raises(InputError, match=r"data\.val=.*short\.mp4: none of 1 videos has 5 frames"):
        train(configure(clips, tmp_path / "run", f"data.val={file}"))


def test_a_crop_too_small_for_raft_stops_before_training(clips: Path, tmp_path: Path) -> None:
    torch.save(RaftLarge().state_dict(), tmp_path / "raft.pth")
    raft = ("loss.flow.enabled=true", "loss.flow.estimator=raft", f"loss.flow.weights={tmp_path}/raft.pth")
    with pytest.raises(InputError, match="at least 64 x 64 pixels, not 8 x 8"):
        TokenizerTrainer(configure(clips, tmp_path / "run", *raft))


@pytest.mark.parametrize("name", experiment_names("tokenizer_train"))
def test_shipped_experiments_resolve(name: str) -> None:
    config = load_config(TokenizerTrainConfig, [f"experiment={name}"], root="tokenizer_train")
    tokenizer = TokenizerConfig.preset(config.model.preset, **config.model.overrides)
    assert (config.data.num_frames - 1) % tokenizer.temporal_compression == 0
    if name.startswith("Cosmos"):
        assert config.output_dir.endswith(f"posttraining/tokenizer/Cosmos-Tokenize1-{config.model.preset}-HDVILA")
        assert config.model.init_from == f"checkpoints/Cosmos-Tokenize1-{config.model.preset}"
        assert config.data.num_frames == tokenizer.chunk_frames


def test_statistics_and_exports_of_a_checkpoint(clips: Path, tmp_path: Path) -> None:
    from nemo_cosmos.training.tokenizer.export import export
    from nemo_cosmos.training.tokenizer.stats import measure_folder

    folder = train(configure(clips, tmp_path / "run", "trainer.max_steps=2", "checkpoint.statistics_clips=0"))
    with pytest.warns(UserWarning, match="no latent statistics"):
        assert not load_tokenizer(folder).has_statistics
    measure_folder(folder, f"{clips}/*.mp4", max_clips=4, crop=(32, 48), resolution=None, device="cpu")
    tokenizer = load_tokenizer(folder)
    assert tokenizer.has_statistics and tokenizer.mean.shape == (16, 2)
    file = tmp_path / "run" / "checkpoints" / "iter_000000002.pt"
    export(file, tmp_path / "jit", form="jit")
    export(file, tmp_path / "vae", form="diffusers", regular=True)
    export(folder, tmp_path / "copy", form="folder")
    assert load_tokenizer(tmp_path / "copy").identity == tokenizer.identity
    video = torch.rand(1, 3, 5, 16, 16) * 2 - 1
    encoder = torch.jit.load(str(tmp_path / "jit" / "encoder.jit"))
    torch.testing.assert_close(encoder(video)[0], tokenizer.module.encode(video), rtol=0, atol=1e-6)
    assert (tmp_path / "vae" / "diffusion_pytorch_model.safetensors").is_file()
    with pytest.raises(InputError, match="expected one of folder"):
        export(file, tmp_path / "x", form="onnx")


def test_a_run_goes_on_beside_damaged_metrics_and_what_a_kill_left(clips: Path, tmp_path: Path) -> None:
    quick = ("data.val=null", "checkpoint.statistics_clips=0", "checkpoint.every_n_steps=1")
    train(configure(clips, tmp_path, "trainer.max_steps=1", *quick))
    with (tmp_path / "metrics.jsonl").open("ab") as file:
        file.write(b'\xff\xfe\nnull\n{"step": 9}\n{"step": 2, "lo')
    left = [
        *(".iter_000000002.pt.tmp", ".iter_000000002_enc.jit.tmp77", ".latest_checkpoint.txt.tmp"),
        *("../.metrics.jsonl.tmp", "../metrics.tmp"),
    ]
    for name in left:
        (tmp_path / "checkpoints" / name).write_text("half")
    (tmp_path / ".tokenizer.tmp77").mkdir()
    (tmp_path / "tokenizer").rename(tmp_path / ".tokenizer.old77")
    train(configure(clips, tmp_path, "trainer.max_steps=2", *quick))
    assert [record["step"] for record in records(tmp_path)] == [0, 1, 2]
    entries = [*tmp_path.iterdir(), *(tmp_path / "checkpoints").iterdir()]
    assert not [entry.name for entry in entries if "tmp" in entry.name or ".old" in entry.name]


def test_a_save_counts_only_with_its_exports(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    module = build_tokenizer("CV4x8x8-360p", channels=8, num_res_blocks=1)
    save_checkpoint(tmp_path, 1, {}, 1)
    with monkeypatch.context() as patch:
        patch.setattr("nemo_cosmos.training.tokenizer.checkpoint.export_jit", killed)
        with pytest.raises(KeyboardInterrupt):
            save_checkpoint(tmp_path, 2, {}, 1, module)
    found = latest_checkpoint(tmp_path)
    assert found is not None and found.name == "iter_000000001.pt"


def test_saves_of_a_run_that_was_rolled_back_do_not_push_out_new_ones(tmp_path: Path) -> None:
    for step in (1, 2, 3):
        save_checkpoint(tmp_path, step, {}, 3)
    (tmp_path / "latest_checkpoint.txt").write_text("iter_000000001.pt\n")
    save_checkpoint(tmp_path, 2, {}, 1)
    found = latest_checkpoint(tmp_path)
    assert found is not None and found.name == "iter_000000002.pt"
    assert not (tmp_path / "iter_000000001.pt").exists()


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"../iter_1.pt", b"/etc/passwd", b"iter_1.pt\0", b"a.pt\nb.pt"])
def test_a_damaged_marker_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "latest_checkpoint.txt").write_bytes(content)
    with pytest.raises(InputError, match=r"latest_checkpoint\.txt"):
        latest_checkpoint(tmp_path)
