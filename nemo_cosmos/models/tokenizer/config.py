"""Hyper-parameters of the Cosmos-Tokenize1 video tokenizers and the four released presets."""

from __future__ import annotations

import dataclasses
import difflib
import math
from dataclasses import dataclass
from typing import Any

from nemo_cosmos.errors import InputError
from nemo_cosmos.typed import Limits, check_fields

_LIMITS: Limits = {
    "patch_size": (1, 16),
    "temporal_compression": (1, 256),
    "spatial_compression": (1, 256),
    "channels": (1, 1 << 13),
    "channels_mult": (1, 64),
    "num_res_blocks": (1, 64),
    "z_channels": (1, 1 << 13),
    "latent_channels": (1, 1 << 12),
    "in_channels": (1, 1 << 10),
    "out_channels": (1, 1 << 10),
    "dropout": (0, 1),
    "levels": (2, 1 << 16),
    "chunk_frames": (1, 1 << 14),
}
"""Least and most of each size; tokenizers in use are far from all of them."""
LARGEST_CODEBOOK = 1 << 24
"""Codes of a discrete tokenizer; each one is kept as a vector."""


@dataclass(frozen=True)
class TokenizerConfig:
    """Everything that fixes a tokenizer's parameters and its compression.

    The number of halvings inside the network follows from the compressions: the Haar patcher already divides time and
    space by ``patch_size``, the rest is done by the first levels of the encoder.
    """

    name: str
    """Preset or the user's own name; "CV…" continuous and "DV…" discrete by convention only."""
    discrete: bool = False
    """True: finite scalar quantisation and integer indices; False: continuous latents."""
    patch_size: int = 4
    """Side of the Haar patch, in frames and pixels (a power of two)."""
    temporal_compression: int = 8
    spatial_compression: int = 8
    channels: int = 128
    channels_mult: tuple[int, ...] = (2, 4, 4)
    num_res_blocks: int = 2
    z_channels: int = 16
    """Channels between the network and the 1×1×1 convolutions around the bottleneck."""
    latent_channels: int = 16
    in_channels: int = 3
    out_channels: int = 3
    dropout: float = 0.0
    levels: tuple[int, ...] = (8, 8, 8, 5, 5, 5)
    """FSQ levels per code dimension; used by discrete tokenizers only."""
    formulation: str = "AE"
    """Continuous bottleneck: "AE" (deterministic, as released) or "VAE" (mean and log-variance, needs the KL term)."""
    legacy_mode: bool = False
    """Upsampling order of the older "0.1" tokenizers."""
    chunk_frames: int = 121
    """Pixel frames encoded at once; latent statistics are kept per latent frame of such a chunk."""

    def __post_init__(self) -> None:
        check_fields(self, _LIMITS, "tokenizer ")
        for name in ("channels_mult", "levels"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        for key in ("patch_size", "temporal_compression", "spatial_compression"):
            value = getattr(self, key)
            if value < 1 or value & (value - 1):
                raise InputError(f"tokenizer {key}={value}: expected a power of two")
        if min(self.temporal_compression, self.spatial_compression) < self.patch_size:
            raise InputError(
                f"tokenizer patch_size={self.patch_size} exceeds the compression "
                f"{self.temporal_compression}x{self.spatial_compression}: take a smaller patch"
            )
        if max(self.num_temporal_downs, self.num_spatial_downs) > len(self.channels_mult) - 1:
            raise InputError(
                f"channels_mult={list(self.channels_mult)} has too few levels for compression "
                f"{self.temporal_compression}x{self.spatial_compression} with patch_size={self.patch_size}: "
                f"expected at least {max(self.num_temporal_downs, self.num_spatial_downs) + 1}"
            )
        if self.formulation not in ("AE", "VAE"):
            raise InputError(f"tokenizer formulation={self.formulation!r}: expected 'AE' or 'VAE'")
        if self.discrete and self.formulation != "AE":
            raise InputError("a discrete tokenizer has no VAE formulation: set formulation='AE'")
        if self.discrete and self.latent_channels != len(self.levels):
            raise InputError(
                f"latent_channels={self.latent_channels} and {len(self.levels)} FSQ levels: make them equal"
            )
        if self.discrete and self.codebook_size > LARGEST_CODEBOOK:
            raise InputError(f"tokenizer levels={list(self.levels)}: expected a product of at most {LARGEST_CODEBOOK}")
        if (self.chunk_frames - 1) % self.temporal_compression:
            raise InputError(f"chunk_frames={self.chunk_frames}: expected 1 + k*{self.temporal_compression}")

    @property
    def num_temporal_downs(self) -> int:
        """Levels that halve time after the patcher."""
        return int(math.log2(self.temporal_compression)) - int(math.log2(self.patch_size))

    @property
    def num_spatial_downs(self) -> int:
        """Levels that halve height and width after the patcher."""
        return int(math.log2(self.spatial_compression)) - int(math.log2(self.patch_size))

    @property
    def z_factor(self) -> int:
        """2 when the bottleneck carries mean and log-variance, else 1."""
        return 2 if self.formulation == "VAE" else 1

    @property
    def chunk_latent_frames(self) -> int:
        """Latent frames of one full chunk."""
        return 1 + (self.chunk_frames - 1) // self.temporal_compression

    @property
    def codebook_size(self) -> int:
        """Number of codes of a discrete tokenizer (64,000 as released)."""
        return math.prod(self.levels)

    def as_dict(self) -> dict[str, Any]:
        """A json-able dictionary of all fields."""
        values = dataclasses.asdict(self)
        return {key: list(value) if isinstance(value, tuple) else value for key, value in values.items()}

    @classmethod
    def from_dict(cls, values: dict[str, Any], *, origin: str = "tokenizer configuration") -> TokenizerConfig:
        """Inverse of :meth:`as_dict`; an unknown key raises InputError naming the nearest known one."""
        if not isinstance(values, dict):
            raise InputError(f"{origin}: expected a dictionary of settings, found {type(values).__name__}")
        known = {f.name for f in dataclasses.fields(cls)}
        for key in values:
            if key not in known:
                near = difflib.get_close_matches(str(key), known, n=1)
                hint = f"; did you mean {near[0]!r}?" if near else f"; known keys: {', '.join(sorted(known))}"
                raise InputError(f"{origin}: unknown key {str(key)[:80]!r}{hint}")
        if "name" not in values:
            raise InputError(f"{origin}: the key 'name' is missing")
        try:
            return cls(**values)
        except InputError as error:
            raise InputError(f"{origin}: {error}") from error

    @classmethod
    def preset(cls, preset: str, **overrides: Any) -> TokenizerConfig:
        """One of the released configurations with fields overridden by keyword.

        Args:
            preset: ``CV8x8x8-720p``, ``CV4x8x8-360p``, ``DV8x16x16-720p`` or ``DV4x8x8-360p``.
            overrides: any field of this class.

        Raises:
            InputError: unknown preset or field.
        """
        if preset not in PRESETS:
            near = difflib.get_close_matches(preset, PRESETS, n=1, cutoff=0.3)
            hint = f" (nearest: {near[0]})" if near else ""
            raise InputError(f"unknown tokenizer {preset!r}{hint}: expected one of {', '.join(PRESETS)}")
        values: dict[str, Any] = {"name": preset, **PRESETS[preset]}
        if overrides.get("discrete", values["discrete"]) and "levels" in overrides:
            levels = overrides["levels"]
            values["latent_channels"] = len(levels) if isinstance(levels, list | tuple) else 0
        values.update(overrides)
        return cls.from_dict(values, origin=f"tokenizer {preset}")


PRESETS: dict[str, dict[str, Any]] = {
    "CV8x8x8-720p": {
        "discrete": False,
        "patch_size": 4,
        "temporal_compression": 8,
        "spatial_compression": 8,
        "z_channels": 16,
        "latent_channels": 16,
        "chunk_frames": 121,
    },
    "CV4x8x8-360p": {
        "discrete": False,
        "patch_size": 2,
        "temporal_compression": 4,
        "spatial_compression": 8,
        "z_channels": 16,
        "latent_channels": 16,
        "chunk_frames": 49,
    },
    "DV8x16x16-720p": {
        "discrete": True,
        "patch_size": 4,
        "temporal_compression": 8,
        "spatial_compression": 16,
        "z_channels": 16,
        "latent_channels": 6,
        "chunk_frames": 49,
    },
    "DV4x8x8-360p": {
        "discrete": True,
        "patch_size": 2,
        "temporal_compression": 4,
        "spatial_compression": 8,
        "z_channels": 256,
        "latent_channels": 6,
        "chunk_frames": 49,
    },
}
"""The four released video tokenizers (hyper-parameters common to all are the dataclass defaults)."""
