"""The verbs of data: rendered clips to shards, checked and shown, as a user types them."""

import pytest
import torch
import typer
from typer.testing import CliRunner

from nemo_cosmos.commands.options import parse_size, parse_sizes
from nemo_cosmos.commands.prepare import prepare
from nemo_cosmos.commands.preview import preview
from nemo_cosmos.commands.sample_data import sample_data
from nemo_cosmos.commands.validate import validate
from nemo_cosmos.data.shards import ShardDataset
from nemo_cosmos.errors import InputError
from nemo_cosmos.models.text import save_tiny_text_encoder
from nemo_cosmos.models.tokenizer import build_tokenizer, load_tokenizer, save_tokenizer

app = typer.Typer()
app.command("sample-data")(sample_data)
for verb in (prepare, validate, preview):
    app.command()(verb)


def call(*words):
    result = CliRunner().invoke(app, [str(word) for word in words])
    if isinstance(result.exception, InputError):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.output


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """Clips, a tiny tokenizer of the released class, a tiny text encoder."""
    path = tmp_path_factory.mktemp("work")
    call("sample-data", path / "clips", "--clips", 3, "--held-out", 1, "--size", "32x32", "--frames", 9)
    torch.manual_seed(0)
    tokenizer = build_tokenizer("CV4x8x8-360p", channels=8, num_res_blocks=1, chunk_frames=9)
    statistics = {"mean": torch.zeros(16, 3), "std": torch.full((16, 3), 0.2)}
    save_tokenizer(path / "tokenizer", tokenizer, name="tiny", **statistics)
    save_tiny_text_encoder(path / "text", width=16)
    return path


def prepare_flags(work, out, *more):
    models = ("--tokenizer", work / "tokenizer", "--text-encoder", work / "text")
    return ("prepare", work / "clips/train", out, *models, "--frames", 9, "--size", "32x32", "--workers", 0, *more)


def test_from_clips_to_a_gallery(work, tmp_path):
    said = call(*prepare_flags(work, tmp_path / "s"))
    assert "prepared 3 samples" in said and "0 clips skipped" in said and "latents (16, 3, 4, 4)" in said
    dataset = ShardDataset(tmp_path / "s")
    dataset.manifest.require_tokenizer(load_tokenizer(work / "tokenizer").identity)
    assert dataset[0].caption.startswith("a ") and dataset[0].fps == pytest.approx(8)
    assert "0 samples; 3 were there already" in call(*prepare_flags(work, tmp_path / "s")).replace("prepared ", "")
    said = call("validate", tmp_path / "s")
    assert "3 samples in 1 shards" in said and "fit for training" in said
    said = call("preview", tmp_path / "s", "--tokenizer", work / "tokenizer", "--limit", 2)
    assert "2 samples" in said and (tmp_path / "s/preview.html").stat().st_size > 10_000


def test_validate_refuses_damaged_shards(work, tmp_path):
    call(*prepare_flags(work, tmp_path / "s"))
    shard = next((tmp_path / "s").glob("*.tar"))
    shard.write_bytes(shard.read_bytes()[:-1])
    with pytest.raises(InputError, match="unfit for training"):
        call("validate", tmp_path / "s")


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--frames", 10), "10"),
        (("--size", "30x32"), "multiples of 16"),
        (("--size", "32"), "HEIGHTxWIDTH"),
        (("--size", "32x32,"), "HEIGHTxWIDTH"),
        (("--size", "32x48,48x30"), "48x30.*multiples of 16"),
        (("--size", "32x48,48x32,32x48"), "named twice"),
        (("--latent-dtype", "int8"), "int8"),
        (("--device", "tpu"), "tpu"),
        (("--dtype", "int8"), "int8"),
        (("--workers", -1), "workers=-1"),
        (("--tokenizer", "nowhere"), "nowhere"),
        (("--samples-per-shard", 0), "samples_per_shard=0"),
        (("--text-encoder", "nowhere"), "nowhere"),
        (("--text-encoder", "no/where"), "no/where"),
    ],
)
def test_mistakes_write_nothing(work, tmp_path, flags, words):
    with pytest.raises(InputError, match=words):
        call(*prepare_flags(work, tmp_path / "s", *flags))
    assert not (tmp_path / "s").exists()


def test_sizes():
    assert parse_sizes("704x1280, 1280X704") == [(704, 1280), (1280, 704)] and parse_sizes("8x8") == [(8, 8)]
    assert parse_size("704x1280") == (704, 1280) and parse_size("64X96") == (64, 96)
    for wrong in ("704", "0x8", "axb", "1x2x3", "-8x8"):
        with pytest.raises(InputError, match="HEIGHTxWIDTH"):
            parse_size(wrong)
