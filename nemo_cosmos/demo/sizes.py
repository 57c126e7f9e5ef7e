"""How large the demo is."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class DemoSize:
    """How much of everything.

    Attributes:
        scenes: rendered clips, where the user brings none.
        scene_frames: frames of each, enough for a window to train on and one to hold out.
        frames: window lengths to choose from, longest first: each 1 + a multiple of the tokenizer's temporal
            compression (4).
        area: pixels of a frame, about, (height, width).
        training_windows: at most, over all clips.
        held_out_windows: ends of clips that are held out, at most.
        held_out_scenes: whole clips that are held out, at most, where there are enough.
        training_steps: optimizer steps of post-training all weights.
        lora_steps: optimizer steps of post-training adapters.
        batch: windows per optimizer step.
        sampling_steps: denoising steps of generation.
        base_clips: rendered clips that the network is judged on before post-training.
        processes: of each training, which share every batch.
    """

    scenes: int
    scene_frames: int
    frames: tuple[int, ...]
    area: tuple[int, int]
    training_windows: int
    held_out_windows: int
    held_out_scenes: int
    training_steps: int
    lora_steps: int
    batch: int
    sampling_steps: int
    base_clips: int
    processes: int


SIZES = {
    "full": DemoSize(
        scenes=56,
        scene_frames=34,
        frames=(17, 13, 9, 5),
        area=(96, 128),
        training_windows=96,
        held_out_windows=7,
        held_out_scenes=2,
        training_steps=180,
        lora_steps=120,
        batch=8,
        sampling_steps=12,
        base_clips=24,
        processes=2,
    ),
    "smoke": DemoSize(
        scenes=5,
        scene_frames=10,
        frames=(5,),
        area=(32, 32),
        training_windows=4,
        held_out_windows=1,
        held_out_scenes=1,
        training_steps=2,
        lora_steps=2,
        batch=2,
        sampling_steps=2,
        base_clips=2,
        processes=1,
    ),
}
