"""Which pipeline runs which network, and what each knows about settings."""

from __future__ import annotations

from dataclasses import fields

import pytest

from nemo_cosmos.errors import InputError
from nemo_cosmos.inference.config import GenerationConfig
from nemo_cosmos.inference.pipelines import PIPELINES, pipeline_for
from nemo_cosmos.inference.pipelines.camera import CameraPipeline
from nemo_cosmos.inference.pipelines.multiview import MultiviewPipeline, SixViewPipeline
from nemo_cosmos.inference.pipelines.text2image import ASPECT_RATIOS, Text2ImagePipeline
from nemo_cosmos.inference.pipelines.world import WorldPipeline
from nemo_cosmos.models.dit.config import PRESETS, DiTConfig


@pytest.mark.parametrize("preset", sorted(PRESETS))
def test_every_network_has_one_pipeline_or_is_refused_by_its_kind(preset: str) -> None:
    dit = DiTConfig.preset(preset)
    assert sum(pipeline.takes(dit) for pipeline in PIPELINES) <= 1
    if "camera" in preset:
        assert pipeline_for(dit) is CameraPipeline
    elif "multiview" in preset:
        assert pipeline_for(dit) is (MultiviewPipeline if "predict2" in preset else SixViewPipeline)
    else:
        assert pipeline_for(dit) is (Text2ImagePipeline if "text2image" in preset else WorldPipeline)


@pytest.mark.parametrize("pipeline", PIPELINES)
def test_names_of_settings_are_those_of_the_configuration(pipeline: type[WorldPipeline]) -> None:
    """A setting that is misspelt in a pipeline would count as one with an effect."""
    assert {*pipeline.without_effect, *pipeline.own_defaults} <= {field.name for field in fields(GenerationConfig)}


def test_defaults_of_each_pipeline() -> None:
    video = WorldPipeline.configure({"guidance": None, "num_steps": 20})
    assert video == GenerationConfig(num_steps=20) and video.guidance == 7
    image = Text2ImagePipeline.configure({"guidance": None, "fit": None})
    assert (image.guidance, image.num_steps, image.num_frames, image.sampler) == (4, 35, 1, None)
    assert Text2ImagePipeline.configure({"guidance": 7.0}).guidance == 7


def test_small_networks_are_guided_less() -> None:
    for name, pipeline in (
        ("predict1-tiny-video2world", WorldPipeline),
        ("predict2-tiny-text2image", Text2ImagePipeline),
    ):
        dit = DiTConfig.preset(name)
        assert pipeline.configure({"guidance": None}, dit=dit).guidance == 1
        assert pipeline.configure({"guidance": 7.0}, dit=dit).guidance == 7
    assert WorldPipeline.configure({}, dit=DiTConfig.preset("predict1-7b-video2world")).guidance == 7


@pytest.mark.parametrize(
    ("pipeline", "settings", "message"),
    [
        (Text2ImagePipeline, {"num_frames": 9}, "num_frames=9: has no effect, the weights make images"),
        (Text2ImagePipeline, {"chunk_frames": 9}, "chunk_frames=9"),
        (Text2ImagePipeline, {"overlap_frames": 1}, "overlap_frames=1"),
        (Text2ImagePipeline, {"num_input_frames": 5}, "num_input_frames=5"),
        (Text2ImagePipeline, {"input_from": "start"}, "input_from=start"),
        (Text2ImagePipeline, {"fit": "pad"}, "fit=pad"),
        (Text2ImagePipeline, {"fps": 8.0}, r"fps=8\.0"),
        (Text2ImagePipeline, {"crf": 0}, "crf=0"),
        (Text2ImagePipeline, {"image_format": "webp"}, "image_format='webp': expected jpg or jpeg or png"),
        (Text2ImagePipeline, {"image_quality": 101}, "image_quality=101"),
        (Text2ImagePipeline, {"image_quality": 90, "image_format": "png"}, "PNG is lossless"),
        (WorldPipeline, {"image_format": "png"}, "image_format=png: has no effect, the weights make videos"),
        (WorldPipeline, {"image_quality": 90}, "image_quality=90"),
    ],
)
def test_settings_without_effect_are_refused(
    pipeline: type[WorldPipeline], settings: dict[str, object], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        pipeline.configure(settings)


def test_sizes_of_images_by_their_shape() -> None:
    for ratio, size in ASPECT_RATIOS.items():
        config = Text2ImagePipeline.configure({"height": None}, ratio)
        assert (config.height, config.width) == size and not any(side % 16 for side in size)
        width, height = map(int, ratio.split(":"))
        assert size[1] / size[0] == pytest.approx(width / height, rel=0.01)
    for given, ratio, message in (
        ({}, "2:1", "aspect_ratio='2:1': expected 16:9 or"),
        ({"height": 512}, "1:1", "or height and width"),
    ):
        with pytest.raises(InputError, match=message):
            Text2ImagePipeline.configure(given, ratio)
    with pytest.raises(InputError, match="has no effect on a video"):
        WorldPipeline.configure({}, "16:9")
