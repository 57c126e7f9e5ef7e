"""How much of everything makes nemo-cosmos-tiny."""

from __future__ import annotations

from dataclasses import dataclass

FRAMES = 17
"""Of a clip: five latent frames."""
TEXT_WIDTH = 64
TEXT_LENGTH = 64
LARGEST_FOLDER = 24_000_000
"""Bytes of everything that is shipped."""
MOST_TOKENIZER_PARAMETERS = 3_000_000
MOST_NETWORK_PARAMETERS = 12_000_000
TOKENIZER = "Cosmos-Tokenize1-CV4x8x8-Tiny"
TEXT_ENCODER = "google-t5/t5-11b"
"""Where released checkpoints have theirs, so that the same paths lead there."""


@dataclass(frozen=True)
class Network:
    """One of the four networks.

    Attributes:
        folder: its name in what is shipped.
        experiment: what it is trained by.
        images: whether it is trained on frames instead of clips.
    """

    folder: str
    experiment: str
    images: bool = False


NETWORKS = (
    Network("Cosmos-Predict1-Tiny-Video2World", "tiny_predict1_video2world"),
    Network("Cosmos-Predict1-Tiny-Text2World", "tiny_predict1_text2world"),
    Network("Cosmos-Predict2-Tiny-Video2World", "tiny_predict2_video2world"),
    Network("Cosmos-Predict2-Tiny-Text2Image", "tiny_predict2_text2image", images=True),
)


@dataclass(frozen=True)
class Size:
    """How much.

    Attributes:
        clips: (landscape, portrait) clips to train on.
        held_out: clips of each shape kept apart.
        pixels: (short, long) side of a clip.
        tokenizer_steps: optimizer steps of the tokenizer.
        network_steps: optimizer steps of each network.
        image_stride: frames between those that Text2Image is trained on.
        tokenizer: further settings of its training.
        networks: further settings of theirs.
    """

    clips: tuple[int, int]
    held_out: int
    pixels: tuple[int, int]
    tokenizer_steps: int
    network_steps: int
    image_stride: int
    tokenizer: tuple[str, ...] = ()
    networks: tuple[str, ...] = ()


SIZES = {
    "full": Size(
        clips=(6000, 2000),
        held_out=16,
        pixels=(96, 128),
        tokenizer_steps=6000,
        network_steps=6000,
        image_stride=8,
    ),
    "smoke": Size(
        clips=(4, 2),
        held_out=1,
        pixels=(32, 48),
        tokenizer_steps=2,
        network_steps=2,
        image_stride=16,
        tokenizer=(
            "data.num_frames=5",
            "data.crop=[32,32]",
            "data.micro_batch=2",
            "data.global_batch=2",
            "data.num_workers=0",
            "optimizer.warmup_steps=0",
            "validation.max_clips=1",
            "checkpoint.statistics_clips=4",
        ),
        networks=(
            "data.micro_batch=2",
            "data.global_batch=2",
            "data.num_workers=0",
            "optimizer.warmup_steps=0",
            "trainer.precision=fp32",
        ),
    ),
}
