"""The models of a pipeline."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from nemo_cosmos.inference.components import Component
from nemo_cosmos.inference.guardrail import Guardrail
from nemo_cosmos.inference.prompts import PromptUpsampler
from nemo_cosmos.models.dit.config import DiTConfig
from nemo_cosmos.models.text import TextEncoder
from nemo_cosmos.models.video_tokenizer import VideoTokenizer

if TYPE_CHECKING:
    from nemo_cosmos.models.dit.model import CosmosDiT


@dataclass
class Models:
    """The parts of a pipeline; each decides by itself when it is on the device. ``dit`` describes the network."""

    dit: DiTConfig
    network: Component[CosmosDiT]
    tokenizer: Component[VideoTokenizer]
    text_encoder: Component[TextEncoder]
    upsampler: Component[PromptUpsampler] | None = None
    guardrail: Component[Guardrail] | None = None
