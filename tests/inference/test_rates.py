"""An image has no frame rate: it is animated at the one that the network was trained at, where there is one."""

import pytest
from PIL import Image

from nemo_cosmos.data.manifest import Manifest, one_rate
from nemo_cosmos.data.record import DataRecord
from nemo_cosmos.data.sample import TokenizerIdentity
from nemo_cosmos.inference.config import GenerationConfig, WeightDefaults, weight_defaults
from nemo_cosmos.inference.pipelines.world import WorldPipeline
from nemo_cosmos.inference.requests import GenerationRequest


@pytest.fixture
def generate(models, tmp_path):
    Image.new("RGB", (48, 32)).save(tmp_path / "photo.jfif", "JPEG")

    def call(defaults, given=True, **settings):
        parts = models()
        config = GenerationConfig(height=32, width=48, num_frames=5, num_steps=2, **settings)
        pipeline = WorldPipeline(parts, config, defaults)
        request = GenerationRequest("a", "go", tmp_path / "photo.jfif" if given else None)
        _, fps = pipeline.generate(request, pipeline.prepare_texts([request])[0])
        with parts.network.use() as network:
            assert all(call["fps"].item() == pytest.approx(fps) for call in network.calls)
        return fps

    return call


def test_an_image_takes_the_rate_of_the_training_data(generate, caplog):
    with caplog.at_level("INFO"):
        assert generate(WeightDefaults(fps=16.0)) == 16
    assert "16 frames per second, the rate of all training samples" in caplog.text
    assert generate(WeightDefaults(fps=16.0), given=False) == 16
    assert generate(WeightDefaults(fps=16.0), fps=10) == 10


def test_what_is_assumed_is_said(generate, caplog):
    assert generate(WeightDefaults()) == 24
    assert "24 frames per second are assumed" in caplog.text


@pytest.mark.parametrize(
    ("rates", "one"),
    [
        ([16.0], 16),
        ([29.97, 30.0], 30),
        ([23.976, 24.0], 24),
        ([8.0, 12.0], None),
        ([], None),
        ([24, 24.04, 25], None),
    ],
)
def test_rates_that_differ_by_rounding_are_one(rates, one):
    assert one_rate(rates) == (one if one is None else pytest.approx(one, rel=0.002))


def write_run(folder, *, recorded=None, shards=True, fps=(), settings=None, online=False):
    """A run folder with what it recorded, and the shards as they are now."""
    (folder / "run").mkdir()
    mode = "  mode: online\n" if online else ""
    (folder / "run/config.yaml").write_text(f"data:\n{mode}  path: {folder / 'shards'}\n")
    if recorded is not None:
        DataRecord("somewhere", "digest", 1, list(recorded)).save(folder / "run")
    if shards:
        (folder / "shards").mkdir()
        identity = TokenizerIdentity("t", "0" * 64, 4, 8, 16)
        shapes = {"latent_shapes": [[16, 2, 4, 6]], "num_frames": [5], "image_sizes": [[32, 48]]}
        values = {**shapes, "latent_dtypes": ["F32"], "text_widths": [8], "shards": [], "settings": settings or {}}
        Manifest(0, identity, "words", **values, fps=list(fps)).save(folder / "shards")
    return folder / "run"


SIZES = GenerationConfig(height=32, width=48, num_frames=5)


@pytest.mark.parametrize(
    ("run", "fps"),
    [
        ({"fps": [12.0]}, 12),
        ({"fps": [12.0, 8.0]}, None),
        ({"settings": {"fps": 12.0, "step": 2}}, 6),
        ({}, None),
        ({"recorded": [10.0], "fps": [12.0]}, 10),
        ({"recorded": [10.0], "shards": False}, 10),
        ({"shards": False}, None),
        ({"recorded": [10.0], "shards": False, "online": True}, 10),
    ],
)
def test_the_rate_comes_from_the_run_or_its_shards(tmp_path, run, fps):
    assert weight_defaults(write_run(tmp_path, **run), SIZES).fps == fps
