"""The guide of Predict2 from beginning to end: videos, images, embeddings, shards, training, export, images."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import nemo_cosmos as nc
from nemo_cosmos.checkpoint.convert import convert
from nemo_cosmos.config import TrainConfig, load_config
from nemo_cosmos.data.video import write_mp4
from nemo_cosmos.models.text import save_tiny_text_encoder
from nemo_cosmos.training.run import train
from tests.models.wan import save_tiny_wan_vae
from tests.parallel.processes import run_processes

ROOT = Path(__file__).parents[1]
PROMPT = "An image of sks teal robot."
SETTINGS = [
    "experiment=predict2_text2image_training_2b_cosmos_nemo_assets", "model.preset=tiny-predict2-text2image",
    "model.overrides={num_layers: 2, hidden_size: 64, num_attention_heads: 4, text_width: 32, adaln_lora_dim: 8}",
    "data.global_batch=2", "data.num_workers=0", "trainer.max_steps=4", "checkpoint.every_n_steps=2",
    "optimizer.f_max=1", "optimizer.cycle_steps=100",
]  # fmt: skip
"""The experiment of the guide, with a network and a length for a test."""


def script(monkeypatch: pytest.MonkeyPatch, path: str, *words: object) -> None:
    monkeypatch.setattr(sys, "argv", [path, *map(str, words)])
    try:
        runpy.run_path(str(ROOT / path), run_name="__main__")
    except SystemExit as end:
        assert not end.code, f"{path} ended with {end.code}"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the guide has made before images are generated."""
    folder = tmp_path_factory.mktemp("story")
    with pytest.MonkeyPatch.context() as monkeypatch:
        (folder / "assets" / "videos").mkdir(parents=True)
        generator = torch.Generator().manual_seed(0)
        for name in ("one", "two"):
            picture = torch.randint(0, 255, (3, 1, 4, 6), generator=generator, dtype=torch.uint8)
            frames = picture.repeat_interleave(16, 2).repeat_interleave(16, 3).expand(-1, 31, -1, -1).clone()
            frames[:, :, :16, :] //= torch.arange(1, 32, dtype=torch.uint8)[:, None, None]
            write_mp4(folder / "assets" / "videos" / f"{name}.mp4", frames, 30.0)
        save_tiny_text_encoder(folder / "t5", width=32)
        save_tiny_wan_vae(folder / "vae")
        images = folder / "images"
        script(
            monkeypatch, "tools/extract_images_from_videos.py",
            "--input_dataset_dir", folder / "assets", "--output_dataset_dir", images, "--stride", 15, "--workers", 0,
        )  # fmt: skip
        script(
            monkeypatch, "tools/get_t5_embeddings_from_cosmos_nemo_assets.py",
            "--dataset_path", images, "--prompt", PROMPT, "--is_image",
            "--pretrained_model_name_or_path", folder / "t5",
        )  # fmt: skip
    nc.prepare(folder / "images", folder / "shards", tokenizer=folder / "vae", size=(64, 96))
    for name, words in (
        ("full", ["model.init_from=null", "optimizer.lr=1e-2"]),
        ("lora", [f"model.init_from={folder / 'full'}", "model.train_architecture=lora", "optimizer.lr=3e-2"]),
    ):
        cfg = load_config(
            TrainConfig, [*SETTINGS, f"data.path={folder / 'shards'}", f"output_dir={folder / name}", *words]
        )
        run_processes(2, train, cfg, log=folder / "logs" / name)
    return folder


def image(monkeypatch: pytest.MonkeyPatch, folder: Path, *words: object) -> np.ndarray:
    file = folder / "made.png"
    script(
        monkeypatch, "examples/text2image.py", "--prompt", PROMPT, "--save_path", file, "--overwrite",
        "--tokenizer", folder / "vae", "--text_encoder", folder / "t5", "--height", 64, "--width", 96,
        "--num_steps", 3, "--disable_guardrail", *words,
    )  # fmt: skip
    made = np.asarray(Image.open(file)).astype(int)
    assert made.shape == (64, 96, 3) and made.std() > 0
    return made


def test_images_captions_and_embeddings_are_there(folder: Path) -> None:
    names = sorted(file.stem for file in (folder / "images" / "images").glob("*.jpg"))
    assert names == [f"{name}_{number:08d}" for name in ("one", "two") for number in range(3)]
    for kind, suffix in (("metas", "txt"), ("t5_xxl", "pickle")):
        assert sorted(file.stem for file in (folder / "images" / kind).glob(f"*.{suffix}")) == names


def test_an_image_is_written_as_jpg(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script(
        monkeypatch, "examples/text2image.py", "--prompt", PROMPT, "--save_path", folder / "out" / "robot.jpg",
        "--dit_path", folder / "full" / "checkpoints" / "model" / "iter_000000004.pt",
        "--tokenizer", folder / "vae", "--text_encoder", folder / "t5", "--height", 64, "--width", 96,
        "--num_steps", 3, "--disable_guardrail",
    )  # fmt: skip
    with Image.open(folder / "out" / "robot.jpg") as made:
        assert made.format == "JPEG" and made.size == (96, 64)


def test_averaged_weights_are_those_of_the_average(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = folder / "full" / "checkpoints" / "model" / "iter_000000004.pt"
    averaged = image(monkeypatch, folder, "--dit_path", file, "--load_ema")
    assert (averaged != image(monkeypatch, folder, "--dit_path", file)).any()
    convert(folder / "full", folder / "average" / "model.pt", "pt", weights="ema")
    describe(folder / "full", folder / "average")
    as_regular = image(monkeypatch, folder, "--dit_path", folder / "average" / "model.pt")
    assert np.array_equal(as_regular, averaged)


def test_adapters_change_the_image_and_equal_their_merged_weights(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = image(monkeypatch, folder, "--dit_path", folder / "full")
    adapted = image(monkeypatch, folder, "--dit_path", folder / "lora")
    assert (adapted != base).any()
    adapter = folder / "lora" / "checkpoints" / "iter_000000004_reg_lora"
    beside = image(monkeypatch, folder, "--dit_path", folder / "full", "--lora_path", adapter)
    assert np.abs(beside - adapted).max() <= 1
    convert(folder / "lora", folder / "merged" / "model.pt", "pt", weights="reg")
    describe(folder / "full", folder / "merged")
    merged = image(monkeypatch, folder, "--dit_path", folder / "merged" / "model.pt")
    assert np.abs(merged - adapted).max() <= 1


def describe(run: Path, target: Path) -> None:
    """A file of a network of its own size says which it is beside it."""
    (target / "model_config.json").write_bytes((run / "checkpoints" / "model_config.json").read_bytes())
