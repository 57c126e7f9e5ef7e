"""What a generation job is asked for."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from nemo_cosmos.checkpoint.adapters import Adapters
from nemo_cosmos.choices import Part, Precision, Verify, Weights
from nemo_cosmos.inference.config import GenerationConfig
from nemo_cosmos.models.text import DEFAULT_TEXT_ENCODER
from nemo_cosmos.precision import to_dtype


@dataclass(frozen=True)
class GenerationJob:
    """Where the models are and where the videos go.

    Attributes:
        weights: run folder, its ``checkpoints`` folder, or a ``.pt`` file in the released key layout.
        tokenizer: tokenizer folder, or Wan's tokenizer.pth.
        output: folder of the videos.
        config: settings of the generation.
        preset: network of a ``.pt`` file, for example ``predict1-7b-video2world``.
        kind: which weights of a run, "ema" or "reg".
        text_encoder: folder or repository of the T5 encoder.
        upsampler: folder or repository of the prompt upsampler, None for none.
        upsampler_word_limit: longer prompts are used as they are; None upsamples all.
        guardrail: None runs the guardrails where they are installed.
        offload: parts that leave the device when they are not in use.
        dtype: of network and tokenizer; None: bfloat16 on a GPU, float32 on the CPU.
        text_encoder_dtype: of the text encoder.
        overwrite: make finished videos again.
        num_gpus: expected number of processes, None for any.
        verify: how network and tokenizer are compared with their checksums, where they have them.
        lora: adapters to merge into the network: a PEFT folder or a file of them, or several with their weights.
        lora_alpha: of adapters whose files do not say it; None: their rank.
    """

    weights: Path
    tokenizer: Path
    output: Path
    config: GenerationConfig = field(default_factory=GenerationConfig)
    preset: str | None = None
    kind: Weights = "ema"
    text_encoder: str = DEFAULT_TEXT_ENCODER
    upsampler: str | None = None
    upsampler_word_limit: int | None = None
    guardrail: bool | None = None
    offload: frozenset[Part] = frozenset()
    dtype: torch.dtype | None = None
    text_encoder_dtype: torch.dtype = torch.float32
    overwrite: bool = False
    num_gpus: int | None = None
    verify: Verify = "auto"
    lora: Adapters = None
    lora_alpha: float | None = None

    @classmethod
    def from_names(
        cls, *, precision: Precision | None = None, text_encoder_precision: Precision = "fp32", **values: Any
    ) -> GenerationJob:
        """A job whose two dtypes are named "fp32" or "bf16", as on the command line."""
        return cls(
            dtype=None if precision is None else to_dtype(precision),
            text_encoder_dtype=to_dtype(text_encoder_precision),
            **values,
        )
