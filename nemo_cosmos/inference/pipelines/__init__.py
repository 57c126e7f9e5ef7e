"""Pipelines by what a network takes: ``pipeline_for`` chooses, everything else is in the files of this folder."""

from __future__ import annotations

from typing import Any

from nemo_cosmos.errors import InputError
from nemo_cosmos.inference.pipelines.base import GenerationPipeline
from nemo_cosmos.inference.pipelines.multiview import MultiviewPipeline, SixViewPipeline
from nemo_cosmos.inference.pipelines.text2image import Text2ImagePipeline
from nemo_cosmos.inference.pipelines.world import WorldPipeline
from nemo_cosmos.models.dit.config import DiTConfig

PIPELINES: tuple[type[GenerationPipeline[Any]], ...] = (
    WorldPipeline,
    Text2ImagePipeline,
    MultiviewPipeline,
    SixViewPipeline,
)


def pipeline_for(dit: DiTConfig) -> type[GenerationPipeline[Any]]:
    """The pipeline that runs a network.

    Raises:
        InputError: none does.
    """
    for pipeline in PIPELINES:
        if pipeline.takes(dit):
            return pipeline
    raise InputError("the weights are a camera control network, which takes more than a prompt and an input video")
