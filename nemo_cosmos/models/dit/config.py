"""Configuration of the Cosmos diffusion transformer and its presets."""

from __future__ import annotations

import dataclasses
import difflib
from dataclasses import dataclass
from typing import Any, Literal

from nemo_cosmos.errors import InputError
from nemo_cosmos.models.dit.families import FAMILIES
from nemo_cosmos.typed import Limits, check_fields

_LIMITS: Limits = {
    "hidden_size": (8, 1 << 16),
    "num_layers": (1, 1024),
    "num_attention_heads": (1, 1 << 12),
    "in_channels": (1, 1 << 12),
    "out_channels": (1, 1 << 12),
    "plucker_channels": (0, 1 << 10),
    "text_width": (1, 1 << 18),
    "adaln_lora_dim": (1, 1 << 16),
    "patch_size": (1, 64),
    "max_height": (1, 1 << 14),
    "max_width": (1, 1 << 14),
    "max_frames": (1, 1 << 14),
    "rope_ratio": (1e-3, 1e3),
    "num_views": (1, 256),
    "view_channels": (0, 1 << 10),
}
"""Least and most of each size; the largest released network is far from all of them."""


@dataclass(frozen=True)
class TokenGrid:
    """Tokens of one sample: frames × rows × columns, numbered with columns fastest."""

    frames: int
    rows: int
    columns: int

    @property
    def num_tokens(self) -> int:
        return self.frames * self.rows * self.columns


@dataclass(frozen=True)
class DiTConfig:
    """Everything that defines one network; sizes are in latent units, ratios in (time, height, width) order.

    The MLP is four times as wide as ``hidden_size`` and a head has ``hidden_size / num_attention_heads`` channels.
    Channels enter the patch embedding in the order latent, condition mask, plucker, padding mask, view vector.
    """

    family: str
    """What its files, initial weights and objective are like: a name in ``families.py``."""
    hidden_size: int
    num_layers: int
    num_attention_heads: int
    in_channels: int = 16
    out_channels: int = 16
    condition_mask: bool = False
    """One input channel that is 1 on given latent frames (Video2World)."""
    plucker_channels: int = 0
    """Channels of the camera rays: 6 with camera control."""
    text_width: int = 1024
    adaln_lora_dim: int = 256
    patch_size: int = 2
    """Rows and columns of one patch; a patch covers one latent frame."""
    max_height: int = 240
    max_width: int = 240
    max_frames: int = 128
    rope_ratio: tuple[float, float, float] = (2.0, 1.0, 1.0)
    """NTK extrapolation ratio of the rotary base."""
    rope_uses_fps: bool = True
    """Whether time positions are scaled by 24 / fps."""
    rope_table_dtype: Literal["float32", "bfloat16"] = "float32"
    """bfloat16 reproduces the rounded tables of the original code."""
    position_embedding: Literal["learnable", "sincos", "none"] = "learnable"
    """Absolute embedding added to the tokens at the entrance of every layer."""
    num_views: int = 1
    """Cameras that a multiview network knows; a sample may show any number of them."""
    view_channels: int = 0
    """Width of the vector that marks the view, appended to the channels; 0 for one view."""
    frame_repeat: bool = False
    """Whether the view vector has a linear term in ``frame_repeat`` (Predict1 multiview)."""

    def __post_init__(self) -> None:
        check_fields(self, _LIMITS, "the network's ")
        object.__setattr__(self, "rope_ratio", tuple(self.rope_ratio))
        if self.family not in FAMILIES:
            known = " or ".join(map(repr, FAMILIES))
            raise InputError(f"the network's family={self.family[:80]!r}: expected {known}")
        if self.hidden_size % self.num_attention_heads:
            raise InputError(
                f"hidden_size={self.hidden_size} is not divisible by num_attention_heads={self.num_attention_heads}"
            )
        if self.head_dim % 2 or self.head_dim < 8:
            raise InputError(
                f"a head has hidden_size / num_attention_heads = {self.head_dim} channels; "
                "rotary embedding needs an even number of at least 8"
            )

    @property
    def head_dim(self) -> int:
        return self.hidden_size // self.num_attention_heads

    @property
    def objective(self) -> Literal["edm", "rectified_flow"]:
        """What networks of this family are trained and sampled with."""
        return FAMILIES[self.family].objective

    @property
    def mlp_size(self) -> int:
        return 4 * self.hidden_size

    @property
    def channel_groups(self) -> dict[str, int]:
        """Channels that enter the patch embedding by name, in their order; what the network lacks is left out."""
        groups = {
            "latent": self.in_channels,
            "condition_mask": int(self.condition_mask),
            "plucker": self.plucker_channels,
            "padding_mask": 1,
            "view": self.view_channels,
        }
        return {name: channels for name, channels in groups.items() if channels}

    @property
    def patch_channels(self) -> int:
        """Channels that enter the patch embedding; one of them is the padding mask."""
        return sum(self.channel_groups.values())

    @property
    def patch_features(self) -> int:
        return self.patch_channels * self.patch_size**2

    @property
    def multiview(self) -> bool:
        return self.view_channels > 0

    @property
    def position_lengths(self) -> tuple[int, int, int]:
        """Positions in time, height and width that the tables of the network have, in tokens."""
        return self.max_frames, self.max_height // self.patch_size, self.max_width // self.patch_size

    @property
    def makes_images(self) -> bool:
        """Whether a sample is one frame (Text2Image): the network is told neither given frames nor a frame rate."""
        return not (self.condition_mask or self.rope_uses_fps or self.plucker_channels or self.multiview)

    def token_grid(self, frames: int, height: int, width: int) -> TokenGrid:
        """Tokens of a latent.

        Raises:
            InputError: it does not divide into patches, or is larger than the network's position tables.
        """
        patch = self.patch_size
        if height % patch or width % patch:
            raise InputError(f"a latent of {height}×{width} does not divide into patches of {patch}×{patch}")
        if height > self.max_height or width > self.max_width or frames > self.max_frames * self.num_views:
            raise InputError(
                f"a latent of {frames} frames of {height}×{width} is larger than the network's "
                f"{self.max_frames * self.num_views} frames of {self.max_height}×{self.max_width}"
            )
        return TokenGrid(frames, height // patch, width // patch)

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> DiTConfig:
        """Inverse of :meth:`to_dict`.

        Raises:
            InputError: no dictionary, an unknown or missing field, or a value of another type or out of range.
        """
        if not isinstance(values, dict):
            raise InputError(f"expected the fields of a network, found {type(values).__name__}")
        cls._check_fields(values)
        return cls(**values)

    @classmethod
    def preset(cls, name: str, **overrides: Any) -> DiTConfig:
        """The configuration of a released (or ``tiny-*``) network, with any field overridden by keyword.

        Raises:
            InputError: unknown preset or field; the message names the nearest one.
        """
        if name not in PRESETS:
            near = difflib.get_close_matches(name, PRESETS, n=1, cutoff=0.3)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise InputError(f"unknown model preset {name!r}.{hint} Presets: {', '.join(sorted(PRESETS))}")
        return cls.from_dict({**PRESETS[name], **overrides})

    @classmethod
    def _check_fields(cls, values: dict[str, Any]) -> None:
        known = [field.name for field in dataclasses.fields(cls)]
        for key in values:
            if key not in known:
                near = difflib.get_close_matches(str(key), known, n=1, cutoff=0.3)
                hint = f" Did you mean {near[0]!r}?" if near else ""
                raise InputError(f"unknown field {str(key)[:80]!r} of the network.{hint} Fields: {', '.join(known)}")
        needed = [f.name for f in dataclasses.fields(cls) if f.default is dataclasses.MISSING]
        if missing := [name for name in needed if name not in values]:
            raise InputError(f"the field {missing[0]!r} of the network is missing")


def _presets() -> dict[str, dict[str, Any]]:
    presets: dict[str, dict[str, Any]] = {}

    def add(name: str, *parts: dict[str, Any]) -> None:
        presets[name] = {key: value for part in parts for key, value in part.items()}

    size_7b = {"hidden_size": 4096, "num_layers": 28, "num_attention_heads": 32}
    size_2b = {"hidden_size": 2048, "num_layers": 28, "num_attention_heads": 16}
    size_14b = {"hidden_size": 5120, "num_layers": 36, "num_attention_heads": 40}
    size_tiny = {"hidden_size": 128, "num_layers": 4, "num_attention_heads": 4, "adaln_lora_dim": 32}
    video = {"condition_mask": True}

    predict1: dict[str, Any] = {"family": "predict1", "rope_ratio": (2.0, 1.0, 1.0)}
    predict1_14b: dict[str, Any] = {**predict1, "rope_ratio": (2.0, 2.0, 2.0)}
    predict1_views = {"position_embedding": "sincos", "num_views": 6, "view_channels": 6, "frame_repeat": True}
    for size, base, dims in (("7b", predict1, size_7b), ("14b", predict1_14b, size_14b)):
        add(f"predict1-{size}-text2world", base, dims)
        add(f"predict1-{size}-video2world", base, dims, video)
    add("predict1-7b-video2world-camera", predict1, size_7b, video, {"plucker_channels": 6})
    add("predict1-7b-text2world-multiview", predict1, size_7b, predict1_views)
    add("predict1-7b-video2world-multiview", predict1, size_7b, predict1_views, video)

    predict2: dict[str, Any] = {"family": "predict2", "rope_uses_fps": False, "position_embedding": "none"}
    predict2_views = {"rope_uses_fps": True, "num_views": 7, "view_channels": 7, "rope_ratio": (8 / 24, 3.0, 3.0)}
    for size, dims in (("2b", size_2b), ("14b", size_14b)):
        add(f"predict2-{size}-text2image", predict2, dims, {"rope_ratio": (1.0, 4.0, 4.0)})
    add("predict2-2b-video2world", predict2, size_2b, video, {"rope_ratio": (1.0, 3.0, 3.0)})
    add("predict2-14b-video2world", predict2, size_14b, video, {"rope_ratio": (20 / 24, 2.0, 2.0)})
    add("predict2-2b-multiview", predict2, size_2b, video, predict2_views)

    # What nemo-cosmos-tiny is trained as: small, with every table of the large networks.
    released_tiny: dict[str, Any] = {**size_tiny, "num_layers": 6, "text_width": 64}
    wider: dict[str, Any] = {**released_tiny, "hidden_size": 192, "num_attention_heads": 6}
    add("predict1-tiny-video2world", predict1, wider, video)
    add("predict1-tiny-text2world", predict1, released_tiny, {"num_layers": 4})
    add("predict2-tiny-video2world", predict2, released_tiny, video, {"rope_ratio": (1.0, 3.0, 3.0)})
    add("predict2-tiny-text2image", predict2, released_tiny, {"num_layers": 4, "rope_ratio": (1.0, 4.0, 4.0)})

    add("tiny-text2world", predict1, size_tiny)
    add("tiny-video2world", predict1, size_tiny, video)
    add("tiny-video2world-camera", predict1, size_tiny, video, {"plucker_channels": 6})
    add("tiny-video2world-multiview", predict1, size_tiny, predict1_views, video)
    add("tiny-predict2-text2image", predict2, size_tiny, {"rope_ratio": (1.0, 4.0, 4.0)})
    add("tiny-predict2-video2world", predict2, size_tiny, video, {"rope_ratio": (1.0, 3.0, 3.0)})
    add("tiny-predict2-multiview", predict2, size_tiny, video, predict2_views)
    return presets


PRESETS = _presets()
