"""Which tokenizer made a latent: the one thing that shards, tokenizers and networks all know of it."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any

from nemo_cosmos.errors import InputError


@dataclass(frozen=True)
class TokenizerIdentity:
    """Which tokenizer made a latent.

    Attributes:
        name: tokenizer name, for example ``CV8x8x8-720p``.
        sha256: hex digest over the weights in canonical order and the latent statistics.
        temporal_compression: pixel frames per latent frame after the first.
        spatial_compression: pixels per latent cell along height and width.
        latent_channels: channels of the latent.
    """

    name: str
    sha256: str
    temporal_compression: int
    spatial_compression: int
    latent_channels: int

    def to_json(self) -> dict[str, Any]:
        """Plain values that ``from_json`` takes back."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> TokenizerIdentity:
        """Inverse of ``to_json``; InputError names a missing or unknown key."""
        expected = {f.name for f in fields(cls)}
        if set(values) != expected:
            raise InputError(f"tokenizer identity has keys {sorted(values)}, expected {sorted(expected)}")
        return cls(**values)

    def __str__(self) -> str:
        return f"{self.name} ({self.sha256[:12]})"
