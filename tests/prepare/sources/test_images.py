"""A folder of images becomes samples of one frame, and requests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import nemo_cosmos as nc
from nemo_cosmos.commands.generate import generate
from nemo_cosmos.commands.prepare import prepare
from nemo_cosmos.commands.preview import preview
from nemo_cosmos.commands.validate import validate
from nemo_cosmos.data.embeddings import write_embedding
from nemo_cosmos.data.resize import resize
from nemo_cosmos.data.shards import ShardDataset
from nemo_cosmos.data.video import write_mp4
from nemo_cosmos.errors import InputError
from nemo_cosmos.inference.requests import collect_requests
from nemo_cosmos.models.tokenizer import load_tokenizer
from tests.inference import runs
from tests.interface.verbs import command


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models")
    runs.write_models(path, "tiny-predict2-text2image")
    return path


def picture(height: int, width: int, mode: str = "RGB") -> Image.Image:
    rows = np.arange(height * width * 3, dtype=np.uint32).reshape(height, width, 3) * 3 % 251
    return Image.fromarray(rows.astype(np.uint8)).convert(mode)


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """As phones, cameras and drawing programs leave them, each of another size."""
    root = tmp_path / "data"
    (root / "images" / "day").mkdir(parents=True)
    (root / "metas").mkdir()
    exif = Image.Exif()
    exif[0x0112] = 6  # Turned: the file has rows as columns.
    picture(40, 70).save(root / "images" / "turned.jpg", exif=exif, quality=100, subsampling=0)
    Image.new("RGBA", (33, 65), (0, 0, 0, 0)).save(root / "images" / "clear.PNG")
    picture(64, 32, "CMYK").save(root / "images" / "print.tif")
    Image.fromarray(np.full((50, 50), 257 * 100, np.uint16)).save(root / "images" / "day" / "gray16.png")
    for name in ("turned", "clear", "print", "gray16"):
        (root / "metas" / f"{name}.txt").write_text(f"a {name} picture\n")
    return root


def prepared(folder: Path, source: Path, out: Path, *words: Any) -> str:
    models = ("--tokenizer", folder / "tokenizer", "--text-encoder", folder / "text", "--text-length", 12)
    return command(prepare, source, out, *models, "--size", "32x48", "--workers", 0, *words)


def test_each_image_is_a_sample_of_one_frame(folder: Path, images: Path, tmp_path: Path) -> None:
    said = prepared(folder, images, tmp_path / "s", "--latent-dtype", "float32")
    assert "prepared 4 samples" in said and "latents (16, 1, 4, 6)" in said
    samples = {sample.key: sample for sample in ShardDataset(tmp_path / "s")}
    assert {key: s.image_size for key, s in samples.items()} == {
        "turned": (32, 48, 70, 40),
        "clear": (32, 48, 65, 33),
        "print": (32, 48, 64, 32),
        "day_gray16": (32, 48, 50, 50),
    }
    assert {(s.num_frames, s.fps) for s in samples.values()} == {(1, 16.0)}
    assert samples["day_gray16"].caption == "a gray16 picture"
    assert samples["day_gray16"].source == "images/day/gray16.png"
    tokenizer = load_tokenizer(folder / "tokenizer")
    upright = Image.open(images / "images" / "turned.jpg").transpose(Image.Transpose.ROTATE_270)
    shown = resize(torch.from_numpy(np.array(upright)).permute(2, 0, 1), (32, 48))
    for key, frame in (
        ("turned", shown),
        ("clear", torch.full((3, 32, 48), 255)),
        ("day_gray16", torch.full((3, 32, 48), 100)),
    ):
        latent = tokenizer.encode(frame[None, :, None].float() / 127.5 - 1)[0]
        torch.testing.assert_close(samples[key].latent, latent, rtol=1e-4, atol=1e-4)
    assert "4 samples in 1 shards" in command(validate, tmp_path / "s")
    said = command(preview, tmp_path / "s", "--tokenizer", folder / "tokenizer", "--out", tmp_path / "p.html")
    assert "4 samples" in said


def test_padding_and_going_on_after_a_change(folder: Path, images: Path, tmp_path: Path) -> None:
    words = ("--fit", "pad", "--frames", 1, "--source", "images")
    prepared(folder, images, tmp_path / "s", *words)
    mask = {s.key: s for s in ShardDataset(tmp_path / "s")}["print"].padding_mask
    assert mask is not None and mask[0, 0].tolist() == [1, 1, 0, 0, 1, 1]
    picture(64, 32).save(images / "images" / "print.tif")
    (images / "images" / "clear.PNG").unlink()
    (images / "metas" / "turned.txt").write_text("other words")
    said = prepared(folder, images, tmp_path / "s", *words)
    assert "prepared 2 samples" in said and "images/print.tif (image)" in said
    assert "images/turned.jpg (caption)" in said and "dropped: images/clear.PNG" in said


def test_unreadable_images_are_left_out_and_counted(folder: Path, images: Path, tmp_path: Path) -> None:
    (images / "images" / "turned.jpg").write_bytes((images / "images" / "turned.jpg").read_bytes()[:300])
    (images / "images" / "empty.webp").touch()
    (images / "images" / "film.heic").touch()
    (images / "metas" / "empty.txt").write_text("nothing")
    said = prepared(folder, images, tmp_path / "s")
    assert "prepared 3 samples" in said and "2 clips skipped" in said and "1 .heic" in said
    assert "turned.jpg cannot be read as an image" in said


def test_embeddings_of_the_folder(folder: Path, images: Path, tmp_path: Path) -> None:
    for name in ("turned", "clear", "print", "day/gray16"):
        file = images / "t5_xxl" / f"{name}.pickle"
        file.parent.mkdir(parents=True, exist_ok=True)
        write_embedding(file, torch.full((3, runs.WIDTH), float(len(name))))
    result = nc.prepare(images, tmp_path / "s", tokenizer=folder / "tokenizer", size=(32, 48), workers=0)
    assert result.samples == 4
    assert {s.key: s.text[0, 0].item() for s in ShardDataset(tmp_path / "s")}["turned"] == 6
    (images / "t5_xxl" / "print.pickle").unlink()
    with pytest.raises(InputError, match=r"1 clips have no text embedding: images/print\.tif"):
        nc.prepare(images, tmp_path / "t", tokenizer=folder / "tokenizer", size=(32, 48), workers=0)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--frames", 5), r"frames=5: .*data holds images, which have one frame each"),
        (("--frames", 121), "frames=121"),
        (("--fps", 8), "fps=8"),
        (("--step", 2), "step=2"),
        (("--stride", 4), "stride=4"),
        (("--keep-damaged",), "keep_damaged=True"),
        (("--source", "clips"), "images holds no video|data holds no video"),
        (("--source", "zip"), "layout 'zip': expected one of auto, images"),
        (("--layout", "waymo"), "has no folder videos: expected videos/CAMERA"),
        (("--rig", "waymo", "--layout", "images"), "--rig: .*read as images"),
    ],
)
def test_choices_that_images_do_not_have(
    folder: Path, images: Path, tmp_path: Path, words: tuple[Any, ...], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        prepared(folder, images, tmp_path / "s", *words)
    assert not (tmp_path / "s").exists()


def test_images_are_requests(folder: Path, images: Path, tmp_path: Path) -> None:
    requests = collect_requests(source=images, limit=2)
    assert [(r.name, r.prompt) for r in requests] == [("clear", "a clear picture"), ("day_gray16", "a gray16 picture")]
    assert requests[0].visual_input == images / "images" / "clear.PNG"
    models = ("--model", folder / "run", "--tokenizer", folder / "tokenizer", "--text-encoder", folder / "text")
    size = ("--height", 32, "--width", 48, "--num-steps", 2, "--limit", 2)
    command(generate, *models, *size, "--source", images, "--output", tmp_path / "o", "--image-format", "png")
    assert sorted(f.name for f in (tmp_path / "o").glob("*.png")) == ["clear.png", "day_gray16.png"]
    assert (tmp_path / "o" / "clear.txt").read_text() == "a clear picture\n"


def test_an_image_begins_a_video(images: Path, tmp_path: Path) -> None:
    runs.write_models(tmp_path / "v")
    models = ("--model", tmp_path / "v/run", "--tokenizer", tmp_path / "v/tokenizer", "--text-encoder")
    size = ("--height", 32, "--width", 48, "--num-frames", 5, "--num-steps", 2, "--limit", 1)
    command(generate, *models, tmp_path / "v/text", *size, "--source", images, "--output", tmp_path / "o")
    assert (tmp_path / "o" / "clear.mp4").is_file()


def test_clips_are_still_clips(tmp_path: Path) -> None:
    """A cover picture beside videos is none of the samples."""
    write_mp4(tmp_path / "a.mp4", torch.zeros(3, 4, 32, 32, dtype=torch.uint8), 8)
    (tmp_path / "a.txt").write_text("go")
    picture(8, 8).save(tmp_path / "a.jpg")
    [request] = collect_requests(source=tmp_path)
    assert request.visual_input == tmp_path / "a.mp4"
