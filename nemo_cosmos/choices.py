"""Words that users choose among: one type each, for flags of commands, settings and parameters of functions."""

from __future__ import annotations

from typing import Literal

Captions = Literal["front", "all"]
"""Which cameras of a rig have a caption."""
Fit = Literal["crop", "pad", "stretch"]
"""How a picture of another shape fills a frame."""
InputFrom = Literal["start", "end"]
"""Which frames of an input video are given."""
Part = Literal["network", "tokenizer", "text_encoder", "upsampler", "guardrail"]
"""A model that takes part in a generation."""
Precision = Literal["bf16", "fp32"]
"""Of what is computed; :mod:`nemo_cosmos.precision` has the dtypes."""
Sampler = Literal["edm-euler", "res-2ab"]
ScenePacking = Literal["zip", "flat", "folder"]
"""How a rendered scene is packed: a zip file with a folder in it, without one, or unpacked."""
Split = Literal["all", "train", "val"]
"""``val``: the last tenth of the clips by name, rounded down, and one more; ``train``: the others."""
Stacking = Literal["time", "vertical"]
"""How one video holds the views of several cameras: one after another, or in every frame one below the other."""
TokenizerForm = Literal["folder", "jit", "diffusers"]
"""What `tokenizer export` writes."""
Verify = Literal["auto", "full", "size"]
"""``full`` reads every byte, ``size`` compares sizes alone, ``auto`` is ``full`` unless that is much to read."""
Weights = Literal["ema", "reg"]
"""The moving average of a network's weights, or the weights as trained."""
WeightsWritten = Literal["ema", "reg", "both"]
"""What a file of `convert` holds of these."""
WeightsForm = Literal["pt", "run", "diffusers", "pipeline"]
"""What `convert` writes."""
