"""How large the demo is."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class DemoSize:
    """How much of everything.

    Attributes:
        clips: training clips.
        held_out: clips kept apart, to generate and to judge.
        frames: frames of a clip, 1 + a multiple of the tokenizer's temporal compression (4).
        side: height and width of rendered clips, pixels; a user's clips get this area.
        tokenizer_steps: optimizer steps of the tokenizer.
        tokenizer_cut: frames and side of the cuts of clips that the tokenizer is trained on.
        training_steps: optimizer steps of the Video2World network.
        batch: clips per optimizer step.
        sampling_steps: denoising steps of generation.
    """

    clips: int
    held_out: int
    frames: int
    side: int
    tokenizer_steps: int
    tokenizer_cut: tuple[int, int]
    training_steps: int
    batch: int
    sampling_steps: int


SIZES = {
    "full": DemoSize(
        clips=256,
        held_out=8,
        frames=17,
        side=64,
        tokenizer_steps=600,
        tokenizer_cut=(5, 32),
        training_steps=1200,
        batch=16,
        sampling_steps=35,
    ),
    "smoke": DemoSize(
        clips=6,
        held_out=2,
        frames=5,
        side=32,
        tokenizer_steps=2,
        tokenizer_cut=(5, 32),
        training_steps=3,
        batch=2,
        sampling_steps=2,
    ),
}
