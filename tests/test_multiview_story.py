"""Several cameras from beginning to end: clips of a rig, embeddings, shards, training, export, a video of each."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import pytest
import torch

from nemo_cosmos import cli
from nemo_cosmos.config import TrainConfig, load_config
from nemo_cosmos.data.shards import ShardDataset
from nemo_cosmos.data.video import probe, read_frames
from nemo_cosmos.models.text import save_tiny_text_encoder
from nemo_cosmos.training.run import train
from tests.models.wan import save_tiny_wan_vae
from tests.parallel.processes import run_processes

ROOT = Path(__file__).parents[1]
PROMPT = "A video of car driving on the road."
CAMERAS = {"side_left": 4, "front_left": 5, "front": 0, "front_right": 1, "side_right": 2}
SETTINGS = [
    "experiment=predict2_multiview_training_2b_480p_10fps_7views_29frames_waymo5views",
    "model.preset=tiny-predict2-multiview",
    "model.overrides={num_layers: 2, hidden_size: 64, num_attention_heads: 4, text_width: 32, adaln_lora_dim: 8}",
    "data.num_workers=0", "data.text_length=128", "trainer.max_steps=2", "checkpoint.every_n_steps=2",
    "optimizer.f_max=1", "optimizer.warmup_steps=0", "optimizer.cycle_steps=100", "parallel.recompute=none",
]  # fmt: skip
"""The guide's experiment in bf16, its sequence split over two processes, with a network and a length for a test."""


def call(monkeypatch: pytest.MonkeyPatch, *words: object) -> None:
    """``nemo-cosmos WORDS``, or a script of the repository."""
    monkeypatch.setattr(sys, "argv", list(map(str, words)))
    try:
        cli.main() if words[0] == "nemo-cosmos" else runpy.run_path(str(ROOT / str(words[0])), run_name="__main__")
    except SystemExit as end:
        assert not end.code, f"{words} ended with {end.code}"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the guide has made before videos are generated."""
    folder = tmp_path_factory.mktemp("views")
    save_tiny_text_encoder(folder / "t5", width=32)
    save_tiny_wan_vae(folder / "vae")
    waymo = folder / "waymo"
    with pytest.MonkeyPatch.context() as monkeypatch:
        call(
            monkeypatch, "nemo-cosmos", "sample-data", "waymo", waymo, "--clips", 2,
            "--frames", 9, "--size", "48x64", "--side-size", "32x64", "--supersample", 1,
        )  # fmt: skip
        call(
            monkeypatch, "tools/get_t5_embeddings_from_waymo.py", "--dataset_path", waymo, "--prompt", PROMPT,
            "--pretrained_model_name_or_path", folder / "t5",
        )  # fmt: skip
        call(
            monkeypatch, "nemo-cosmos", "prepare", "--layout", "waymo", waymo, folder / "shards", "--tokenizer",
            folder / "vae", "--frames", 9, "--size", "32x48", "--workers", 0,
        )  # fmt: skip
    for name, words in (
        ("full", ["model.init_from=null", "optimizer.lr=1e-2"]),
        ("lora", [f"model.init_from={folder / 'full'}", "model.train_architecture=lora", "optimizer.lr=3e-2"]),
    ):
        cfg = load_config(
            TrainConfig, [*SETTINGS, f"data.path={folder / 'shards'}", f"output_dir={folder / name}", *words]
        )
        run_processes(2, train, cfg, log=folder / "logs" / name)
    return folder


def generate(monkeypatch: pytest.MonkeyPatch, folder: Path, out: Path, *words: object) -> dict[str, torch.Tensor]:
    """Frames of each camera, (3, 9, 32, 48), from the first frames of a clip."""
    clip = next((folder / "waymo" / "videos" / "pinhole_front").iterdir()).stem
    call(
        monkeypatch, "examples/multiview.py", "--prompt", PROMPT, "--num_conditional_frames", 1,
        "--input_path", folder / "waymo" / "videos" / "{camera}" / f"{clip}.mp4", "--save_path", out / "drive.mp4",
        "--tokenizer", folder / "vae", "--text_encoder", folder / "t5", "--height", 32, "--width", 48,
        "--num_frames", 9, "--num_steps", 2, "--disable_guardrail", "--disable_prompt_refiner", *words,
    )  # fmt: skip
    return {name: read_frames(out / "drive" / f"pinhole_{name}.mp4").int() for name in CAMERAS}


def test_captions_and_embeddings_are_there(folder: Path) -> None:
    clips = sorted(file.stem for file in (folder / "waymo" / "videos" / "pinhole_front").iterdir())
    assert len(clips) == 2
    for camera in CAMERAS:
        assert (folder / "waymo" / "cache" / f"prefix_t5_embeddings_pinhole_{camera}.pickle").is_file()
        for kind, suffix in (("metas", "txt"), ("t5_xxl", "pickle")):
            found = sorted(file.stem for file in (folder / "waymo" / kind / f"pinhole_{camera}").glob(f"*.{suffix}"))
            assert found == clips


def test_a_sample_holds_all_cameras_and_the_caption_of_the_front_one(folder: Path) -> None:
    samples = ShardDataset(folder / "shards")
    assert len(samples) == 2
    for sample in samples:
        assert sample.view_ids.tolist() == list(CAMERAS.values())
        assert sample.latent.shape == (16, 5 * 3, 4, 6) and sample.num_frames == 9 and sample.fps == pytest.approx(10)
        told = sample.text.flatten(1).abs().amax(1) > 0
        assert told.tolist() == [False, False, True, False, False]


def test_the_export_holds_both_weights(folder: Path) -> None:
    exported = torch.load(folder / "full" / "checkpoints" / "model" / "iter_000000002.pt", weights_only=True)
    regular = {name.removeprefix("net.") for name in exported if name.startswith("net.")}
    averaged = {name.removeprefix("net_ema.") for name in exported if name.startswith("net_ema.")}
    assert regular == averaged and "view_embeddings.weight" in regular


def test_videos_of_all_cameras_a_grid_and_one_of_all(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = folder / "full" / "checkpoints" / "model" / "iter_000000002.pt"
    made = generate(monkeypatch, folder, folder / "out", "--dit_path", file)
    assert all(frames.shape == (3, 9, 32, 48) for frames in made.values())
    assert len({frames[:, 0].sum().item() for frames in made.values()}) == 5
    grid = probe(folder / "out" / "drive_grid.mp4")
    assert grid.frames == 9 and grid.fps == pytest.approx(10) and (grid.height // 32) * (grid.width // 48) >= 5
    stacked = probe(folder / "out" / "drive.mp4")
    assert (stacked.frames, stacked.height, stacked.width) == (9, 5 * 32, 48)
    averaged = generate(monkeypatch, folder, folder / "averaged", "--dit_path", file, "--load_ema")
    assert any((averaged[name] != made[name]).any() for name in CAMERAS)


def test_adapters_change_the_videos(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base = generate(monkeypatch, folder, folder / "base", "--dit_path", folder / "full")
    adapted = generate(monkeypatch, folder, folder / "adapted", "--dit_path", folder / "lora")
    assert any((adapted[name] != base[name]).any() for name in CAMERAS)
