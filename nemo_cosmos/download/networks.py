"""Released Predict1 networks, with the tokenizer and the text encoder that they need."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from nemo_cosmos.download.hub import Repository
from nemo_cosmos.errors import InputError

SIZES = ("7B", "14B")
TYPES = ("Text2World", "Video2World", "Text2World-Sample-AV-Multiview", "Video2World-Sample-AV-Multiview")
MD5 = {
    "7B-Text2World": "fe9ed68e16cf37b10e7414c9b3ee81e1",
    "7B-Video2World": "ebcdb19c4c4a6a0e1e0bb65e346f6867",
    "14B-Text2World": "c69d1c6e51dc78b959040e8c4035a29b",
    "14B-Video2World": "eaa7aa3678f61d88108c41d7fe201b18",
    "7B-Text2World-Sample-AV-Multiview": "e3a6ef070deaae0678acd529dc749ea4",
    "7B-Video2World-Sample-AV-Multiview": "1653f87dce3d558ee01416593552a91c",
}
"""Of ``model.pt``."""
TOKENIZER_MD5 = {
    "mean_std.pt": "f07680ad7eefae57d698778e2a0c7c96",
    "encoder.jit": "f5834d03645c379bc0f8ad14b9bc0299",
    "decoder.jit": "ff21a63ed817ffdbe4b6841111ec79a8",
    "autoencoder.jit": "7f658580d5cf617ee1a1da85b1f51f0d",
}
"""Of Cosmos-Tokenize1-CV8x8x8-720p."""
_NETWORK = ("model.pt", "config.json", "README.md")
_TOKENIZER = ("model.pt", "config.json", "README.md", "mean_std.pt", "*.jit")
TEXT_FILES = (
    "config.json",
    "generation_config.json",
    "spiece.model",
    "tokenizer*",
    "pytorch_model*",
    "*.safetensors*",
)


def diffusion_repositories(sizes: Sequence[str], types: Sequence[str], folder: Path) -> list[Repository]:
    """The networks of every size and type asked for, then Cosmos-Tokenize1-CV8x8x8-720p and google-t5/t5-11b.

    Multiview networks exist in 7B alone; their 14B is passed over.

    Raises:
        InputError: an unknown size or type.
    """
    for asked, known, flag in ((sizes, SIZES, "--model_sizes"), (types, TYPES, "--model_types")):
        for name in asked:
            if name not in known:
                raise InputError(f"{flag} {name}: expected some of {', '.join(known)}")
    networks = [
        Repository(
            f"nvidia/Cosmos-Predict1-{size}-{kind}",
            folder / f"Cosmos-Predict1-{size}-{kind}",
            _NETWORK,
            {"model.pt": MD5[f"{size}-{kind}"]},
        )
        for size in sizes
        for kind in types
        if f"{size}-{kind}" in MD5
    ]
    if not networks:
        raise InputError("multiview networks exist in 7B alone: add --model_sizes 7B")
    tokenizer = "Cosmos-Tokenize1-CV8x8x8-720p"
    return [
        *networks,
        Repository(f"nvidia/{tokenizer}", folder / tokenizer, _TOKENIZER, TOKENIZER_MD5),
        Repository("google-t5/t5-11b", folder / "google-t5" / "t5-11b", TEXT_FILES),
    ]
