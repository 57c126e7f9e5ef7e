"""A prompt in, an image out: numbers of the pipeline, and the command and `nc.Pipeline` on a tiny network."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import nemo_cosmos as nc
from nemo_cosmos.commands.generate import generate
from nemo_cosmos.errors import InputError
from nemo_cosmos.inference.config import GenerationConfig, WeightDefaults
from nemo_cosmos.inference.pipelines.text2image import ASPECT_RATIOS, Text2ImagePipeline
from nemo_cosmos.inference.requests import GenerationRequest
from tests.inference import runs
from tests.interface.verbs import command

DEFAULTS = WeightDefaults(size=(32, 48), text_length=6)
PRESET = "tiny-predict2-text2image"
SIZE = ("--height", 32, "--width", 48, "--num-steps", 2)


def run(parts: Any, config: GenerationConfig, prompt: str = "go") -> torch.Tensor:
    pipeline = Text2ImagePipeline(parts, config, DEFAULTS)
    request = GenerationRequest("a", prompt)
    frames, fps = pipeline.generate(request, pipeline.prepare_texts([request])[0])
    assert frames is not None and fps == 0
    return frames


def test_one_frame_of_one_latent_with_guidance_of_four(models: Any) -> None:
    """The network shifts its answer by the mean of the text: a row of 0.5 in 6, five times with guidance 4."""
    parts = models(PRESET, target=0.0)
    frames = run(parts, Text2ImagePipeline.configure({}), "w" * 50)
    assert frames.shape == (3, 1, 32, 48) and frames.dtype == torch.uint8
    assert frames.float().mean().item() == pytest.approx((1 + 5 * 0.5 / 6) * 127.5, abs=1)
    with parts.network.use() as network:
        assert len(network.calls) == 2 * (35 + 1)  # res-2ab: one more for the result
        first = network.calls[0]
    assert first["x"].shape == (1, 16, 1, 4, 6) and first["condition_mask"] is None
    assert first["timesteps"].flatten()[-1].item() == pytest.approx(80 / 81)


def test_sizes_of_the_weights_and_of_the_user(models: Any) -> None:
    assert run(models(PRESET), GenerationConfig(height=48, width=32, num_steps=2)).shape == (3, 1, 48, 32)
    with pytest.raises(InputError, match="height=40 is not a multiple of 16"):
        run(models(PRESET), GenerationConfig(height=40))
    assert Text2ImagePipeline.released_size == ASPECT_RATIOS["16:9"] == (768, 1360)


def test_inputs_and_upsamplers_are_for_videos(models: Any, tmp_path: Path) -> None:
    dit, request = models(PRESET).dit, GenerationRequest("a", "go", tmp_path / "a.png")
    with pytest.raises(InputError, match="a: the weights are a Text2Image network, which takes no input"):
        Text2ImagePipeline.check_inputs(dit, [GenerationRequest("b", "go"), request])
    with pytest.raises(InputError, match="a prompt upsampler describes videos"):
        Text2ImagePipeline(models(PRESET, upsampler=object()), GenerationConfig(), DEFAULTS)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("text2image")
    runs.write_models(path, PRESET)
    return path


def said(folder: Path, *words: Any) -> str:
    models = ("--model", folder / "run", "--tokenizer", folder / "tokenizer", "--text-encoder", folder / "text")
    return command(generate, *models, *SIZE, *words)


def test_a_file_a_folder_and_python_give_the_same_image(folder: Path, tmp_path: Path) -> None:
    said(folder, "--prompt", "a red disc", "--output", tmp_path / "one" / "disc.PNG", "--seed", 3)
    assert sorted(file.name for file in (tmp_path / "one").iterdir()) == ["disc.PNG", "disc.json", "disc.txt"]
    record = json.loads((tmp_path / "one" / "disc.json").read_text())
    assert record["settings"] == {
        **{"height": 32, "width": 48, "sampler": None, "num_steps": 2, "guidance": 4.0, "batched_guidance": False},
        **{"negative_prompt": None, "seed": 3, "image_format": "PNG", "image_quality": None},
    }
    pixels = np.asarray(Image.open(tmp_path / "one" / "disc.PNG"))
    assert pixels.shape == (32, 48, 3) and pixels.std() > 1
    pipe = nc.Pipeline.from_pretrained(folder / "run", tokenizer=folder / "tokenizer", text_encoder=folder / "text")
    image = pipe("a red disc", height=32, width=48, num_steps=2, seed=3)
    assert image.shape == (1, 32, 48, 3) and image.dtype == np.uint8 and pipe.fps == 0
    assert np.array_equal(image[0], pixels)
    for arguments, message in (
        ({"num_frames": 5}, "num_frames=5"),
        ({"image": pixels}, "takes no input"),
        ({"aspect_ratio": "2:1"}, "aspect_ratio='2:1'"),
    ):
        with pytest.raises(InputError, match=message):
            pipe("go", **{"height": 32, "width": 48, "num_steps": 2, **arguments})


def test_finished_images_stay(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "batch.jsonl").write_text('{"prompt": "a"}\n{"prompt": "b", "name": "b.c", "seed": 5}\n')
    words = ("--batch", tmp_path / "batch.jsonl", "--output", tmp_path / "out")
    said(folder, *words)
    made = {file.name: file.stat().st_mtime_ns for file in (tmp_path / "out").iterdir()}
    assert sorted(made) == ["0.jpg", "0.json", "0.txt", "b.c.jpg", "b.c.json", "b.c.txt"]
    assert Image.open(tmp_path / "out" / "b.c.jpg").format == "JPEG"
    said(folder, *words)
    assert {file.name: file.stat().st_mtime_ns for file in (tmp_path / "out").iterdir()} == made
    size = (tmp_path / "out" / "0.jpg").stat().st_size
    said(folder, *words, "--image-quality", 10)
    assert (tmp_path / "out" / "0.jpg").stat().st_size < size


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--prompt", "a", "--output", "x.webp"), r"x\.webp: images are written as jpg, jpeg, png"),
        (("--prompt", "a", "--output", "x.mp4"), "images are written as"),
        (("--prompt", "a", "--output", "x.png", "--name", "y"), "name=y"),
        (("--prompt", "a", "--output", "x.png", "--image-format", "jpg"), "image_format=jpg"),
        (("--prompt", "a", "--output", "x.png", "--image-quality", "9"), "PNG is lossless"),
        (("--batch", "two.jsonl", "--output", "x.png"), "2 are asked for"),
        (("--prompt", "a", "--output", "x", "--num-frames", "9"), "num_frames=9"),
        (("--prompt", "a", "--output", "x", "--crf", "9"), "crf=9"),
        (("--prompt", "a", "--output", "x", "--aspect-ratio", "1:1"), "or height and width"),
        (("--prompt", "a", "--output", "x", "--input", "a.png"), "takes no input"),
    ],
)
def test_mistakes_write_nothing(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (48, 32)).save("a.png")
    Path("two.jsonl").write_text('{"prompt": "a"}\n{"prompt": "b"}\n')
    with pytest.raises(InputError, match=message):
        said(folder, *words)
    assert not list(tmp_path.glob("x*/*")) and not list(tmp_path.glob("x.*"))
