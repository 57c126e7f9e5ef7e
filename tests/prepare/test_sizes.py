"""Clips of several shapes in one dataset: each takes the size whose shape is nearest to its own."""

import json

import pytest
import torch

import nemo_cosmos as nc
from nemo_cosmos.commands.plan import latent_of
from nemo_cosmos.config import TrainConfig, load_config
from nemo_cosmos.data.resize import kept_share
from nemo_cosmos.data.shards import ShardDataset
from nemo_cosmos.data.video import write_mp4
from nemo_cosmos.data.windows import WindowPlan
from nemo_cosmos.errors import InputError
from nemo_cosmos.models.text import save_tiny_text_encoder
from nemo_cosmos.models.tokenizer import build_tokenizer, save_tokenizer
from tests.prepare.test_commands import call

SIZES = [(32, 64), (64, 32), (48, 48)]
SHAPES = {
    "wide": (36, 64),
    "film": (32, 76),
    "phone": (80, 46),
    "square": (50, 50),
    "photo": (40, 56),
    "tall": (90, 30),
}
EXPECTED = {
    "wide": (32, 64), "film": (32, 64), "phone": (64, 32), "square": (48, 48), "photo": (48, 48), "tall": (64, 32)
}  # fmt: skip
"""1.4 to 1 is nearer to a square than to 2 to 1, by the logarithm: 0.34 against 0.36."""


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """Clips of many shapes, a tiny tokenizer, a tiny text encoder."""
    path = tmp_path_factory.mktemp("sizes")
    for number, (name, (height, width)) in enumerate(SHAPES.items()):
        frames = torch.randint(0, 256, (3, 5, height, width), generator=torch.Generator().manual_seed(number))
        write_mp4(path / "clips/videos" / f"{name}.mp4", frames.to(torch.uint8), 8.0)
        (path / "clips/metas").mkdir(exist_ok=True)
        (path / "clips/metas" / f"{name}.txt").write_text(f"a {name} clip")
    torch.manual_seed(0)
    tokenizer = build_tokenizer("CV4x8x8-360p", channels=8, num_res_blocks=1, chunk_frames=5)
    statistics = {"mean": torch.zeros(16, 2), "std": torch.full((16, 2), 0.2)}
    save_tokenizer(path / "tokenizer", tokenizer, name="tiny", **statistics)
    save_tiny_text_encoder(path / "text", width=16)
    return path


def prepare(work, out, size, **options):
    models = {"tokenizer": work / "tokenizer", "text_encoder": work / "text"}
    return nc.prepare(work / "clips", out, **models, frames=5, size=size, workers=0, **options)


def test_each_clip_takes_the_nearest_shape(work, tmp_path, capsys):
    out = tmp_path / "s"
    result = prepare(work, out, SIZES)
    samples = {sample.key: sample for sample in map(ShardDataset(out).__getitem__, range(6))}
    assert {key: sample.image_size[:2] for key, sample in samples.items()} == EXPECTED
    assert all(tuple(s.latent.shape[2:]) == (s.image_size[0] // 8, s.image_size[1] // 8) for s in samples.values())
    assert result.manifest.settings["size"] == [[32, 64], [48, 48], [64, 32]]
    assert json.loads((out / "prepare.json").read_text())["size"] == [[32, 64], [48, 48], [64, 32]]
    assert "less than" not in capsys.readouterr().out
    # Named in another order on the command line, they are the same sizes: nothing is encoded again.
    flags = ("--tokenizer", work / "tokenizer", "--text-encoder", work / "text", "--frames", 5, "--workers", 0)
    said = call("prepare", work / "clips", out, *flags, "--size", "48x48,64x32,32x64")
    assert "prepared 0 samples" in said and "6 were there already" in said
    with pytest.raises(InputError, match="size="):
        prepare(work, out, (32, 64))
    assert "(16, 2, 4, 8) (2), (16, 2, 6, 6) (2), (16, 2, 8, 4) (2)" in call("validate", out)
    assert "6 samples" in call("preview", out, "--tokenizer", work / "tokenizer")


def test_a_single_size_is_written_as_before_and_says_what_it_cuts(work, tmp_path, capsys):
    result = prepare(work, tmp_path / "one", (32, 64))
    assert result.manifest.settings["size"] == [32, 64] and result.cropped == 3
    assert "3 of 6 samples show less than 60% of their picture" in capsys.readouterr().out
    assert all("shapes" not in json.loads(file.read_text()) for file in (tmp_path / "one").glob("*.index.json"))
    options = ShardDataset(tmp_path / "one")[0].origin.options
    assert options["size"] == [32, 64] and set(options) == {
        *("frames", "size", "fit", "step", "stride", "fps", "keep_damaged"),
        *("latent_dtype", "dtype", "text_length", "tokenizer", "text_encoder"),
    }
    prepare(work, tmp_path / "listed", [(32, 64)])
    for file in (tmp_path / "one").glob("*.tar"):
        assert file.read_bytes() == (tmp_path / "listed" / file.name).read_bytes()
    assert prepare(work, tmp_path / "padded", (32, 64), fit="pad").cropped == 0


@pytest.mark.parametrize(
    "size", [(), [(32,)], [[32, 64, 3]], "32x64", [32, 64, 96], [(32, 64), (32, 64)], [(32, 6.4)]]
)
def test_what_is_no_size(work, tmp_path, size):
    with pytest.raises(InputError, match="size="):
        prepare(work, tmp_path / "s", size)
    assert not (tmp_path / "s").exists()


def test_among_equal_shapes_the_nearest_area():
    plan = WindowPlan(1, (352, 640), other_sizes=((704, 1280), (96, 96)))
    assert plan.for_source((300, 540)).sizes == ((352, 640),)
    assert plan.for_source((1080, 1960)).sizes == ((704, 1280),)
    assert plan.for_source((3000, 3100)).sizes == ((96, 96),)


def test_the_share_of_a_picture_that_is_kept():
    assert kept_share((1080, 1920), (704, 1280), "crop") == pytest.approx(0.978, abs=1e-3)
    assert kept_share((1920, 1080), (704, 1280), "crop") == pytest.approx(0.309, abs=1e-3)
    assert kept_share((1920, 1080), (704, 1280), "pad") == 1


def test_plan_takes_the_largest_of_several_sizes(work, tmp_path):
    prepare(work, tmp_path / "s", SIZES)
    config = load_config(TrainConfig, ["experiment=demo_video2world", f"data.path={tmp_path / 's'}"])
    latent, _, origin = latent_of("", "", config)
    assert latent == (2, 6, 6) and origin.startswith("the largest of 3 shapes")
