"""What a network is told beside noisy latent and time: one field for each conditioning, with its own rule.

A field's rule says what the field looks like, how it is stored, batched, moved and shown; shards, batches, training,
sampling, benchmarks, validation and preview follow the rules and name no field. A new conditioning is one field here,
and whoever fills it.

Every rank of a sample holds the inputs whole. The network alone cuts: after the patch embedding, where what varies
over frames, rows and columns has become tokens.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

SHARED = "1 or views"
"""Axis of what all views of a sample may share."""
Inputs = TypeVar("Inputs", bound="NetworkInputs")


@dataclass(frozen=True)
class Rule:
    """How one input behaves.

    Attributes:
        axes: dimensions of one sample's value: names of a latent's (``frames``, ``rows``, ``columns``) or of its own,
            a number where the size is fixed, ``SHARED`` where it is the number of views or 1 for all of them.
        stored: it is a tensor of the stored sample.
        real: it takes the network's precision; other values keep theirs (bfloat16 would turn 29.97 frames a second
            into 30).
        zeros_if_missing: samples that lack it get zeros; otherwise all samples of a batch have it, or none.
    """

    axes: tuple[str | int, ...]
    stored: bool = True
    real: bool = True
    zeros_if_missing: bool = False

    def shape(self, latent: Tensor) -> tuple[int | str, ...]:
        """The shape beside a sample's latent (C, T, h, w); sizes that it does not say keep their names."""
        sizes = dict(zip(("frames", "rows", "columns"), latent.shape[1:], strict=True))
        return tuple(sizes.get(axis, axis) if isinstance(axis, str) else axis for axis in self.axes)

    def zeros(self, latent: Tensor) -> Tensor:
        """What stands for a missing value; every size has to follow from the latent, or to be shared by all views."""
        return torch.zeros([1 if size == SHARED else int(size) for size in self.shape(latent)])

    def alike(self, values: Sequence[Tensor]) -> list[Tensor]:
        """Values of one batch in one shape: what some samples share among their views is repeated for each, where
        others have it for each."""
        if SHARED not in self.axes:
            return list(values)
        axis = self.axes.index(SHARED)
        most = max(value.shape[axis] for value in values)
        return [
            value.expand([most if at == axis and size == 1 else size for at, size in enumerate(value.shape)])
            for value in values
        ]

    def problem(self, value: Tensor, latent: Tensor) -> str | None:
        """What is wrong with a sample's value, in words; None when nothing is."""
        expected = self.shape(latent)
        fits = len(expected) == value.ndim and all(
            isinstance(size, str) or size == found for size, found in zip(expected, value.shape, strict=True)
        )
        if not fits:
            return f"expected ({', '.join(map(str, expected))})"
        if value.is_floating_point() and not bool(torch.isfinite(value).all()):
            return f"{int((~torch.isfinite(value)).sum())} numbers that are not finite"
        return None


def _rule(*axes: str | int, **rule: bool) -> dict[str, Rule]:
    return {"rule": Rule(axes, **rule)}


@dataclass(kw_only=True)
class Conditions:
    """What a stored sample may hold for the network beside latent, text and frame rate; in a batch with (B, ...).

    Attributes:
        padding_mask: (1, h, w) at latent resolution, 1 = padded, or (V, h, w) where views differ; None when nothing
            is padded.
        plucker: (6, T, h, w) Plücker rays of camera-controlled clips.
        view_ids: (V,) int64 camera of each view of a multiview clip.
        frame_repeat: (V,) repetition count of each view of a multiview clip, divided by 10.
    """

    padding_mask: Tensor | None = field(default=None, metadata=_rule(SHARED, "rows", "columns", zeros_if_missing=True))
    plucker: Tensor | None = field(default=None, metadata=_rule(6, "frames", "rows", "columns"))
    view_ids: Tensor | None = field(default=None, metadata=_rule("views", real=False))
    frame_repeat: Tensor | None = field(default=None, metadata=_rule("views", real=False))


@dataclass(kw_only=True)
class StoredCameras:
    """What a stored sample may hold of its cameras; the network is given ``plucker``, made of it when it is read.

    Attributes:
        camera_poses: (N, 4, 4) float32 camera to world of every pixel frame, axes right, down, forward; relative to
            frame 0, positions divided by the largest distance from it.
        camera_intrinsics: (N, 4) float32 fx, fy, cx, cy in pixels of the encoded frames, padding included.
    """

    camera_poses: Tensor | None = field(default=None, metadata=_rule("poses", 4, 4))
    camera_intrinsics: Tensor | None = field(default=None, metadata=_rule("poses", 4))


@dataclass(kw_only=True)
class NetworkInputs(Conditions):
    """The inputs of a batch; a value of None is not given to the network.

    Attributes:
        text: (B, M, width) embeddings, zero rows after the last token.
        fps: (B,) float32 frame rate of the pixels.
        condition_mask: (B, 1, T, h, w), 1 on given latent frames; the objective's, made anew for every evaluation.
    """

    text: Tensor = field(metadata=_rule("tokens", "width", stored=False))
    fps: Tensor | None = field(default=None, metadata=_rule(stored=False, real=False))
    condition_mask: Tensor | None = field(default=None, metadata=_rule(1, "frames", "rows", "columns", stored=False))

    def network_inputs(self, **changes: Tensor | None) -> NetworkInputs:
        """The inputs alone, of a batch that holds more than these, with other values for some."""
        values: dict[str, Any] = {**dict(self.items()), **changes}
        return NetworkInputs(**values)

    def feed(self, network: nn.Module, sample: Tensor, timesteps: Tensor) -> Tensor:
        """The network's output for ``sample`` (B, C, T, h, w), multiplied by c_in, at ``timesteps`` (B,) or (B, T)."""
        return network(sample, timesteps, self.text, **self.options())

    def options(self) -> dict[str, Tensor]:
        """What the network is given by name beside the text."""
        return {name: value for name, value in self.items() if value is not None and name != "text"}

    def expand(self, copies: int) -> NetworkInputs:
        """The inputs of one sample for a batch of ``copies``; what is a batch of that size already stays."""
        values: dict[str, Any] = {n: None if v is None else v.expand(copies, *v.shape[1:]) for n, v in self.items()}
        return NetworkInputs(**values)

    def to(self: Inputs, device: torch.device | str | int | None = None, dtype: torch.dtype | None = None) -> Inputs:
        """Copy on a device; ``dtype`` converts what takes the network's precision."""

        def move(name: str, value: Tensor | None) -> Tensor | None:
            if value is None:
                return None
            return value.to(device=device, dtype=dtype if self._is_real(name) else None, non_blocking=True)

        moved: dict[str, Any] = {name: move(name, value) for name, value in self._tensors()}
        return replace(self, **moved)

    def pin_memory(self: Inputs) -> Inputs:
        """Copy in page-locked memory; the DataLoader's ``pin_memory=True`` calls this."""
        pinned: dict[str, Any] = {name: None if t is None else t.pin_memory() for name, t in self._tensors()}
        return replace(self, **pinned)

    def items(self) -> Iterator[tuple[str, Tensor | None]]:
        """The inputs by name."""
        return ((name, getattr(self, name)) for name in RULES)

    def _tensors(self) -> Iterator[tuple[str, Any]]:
        values = ((item.name, getattr(self, item.name)) for item in fields(self))
        return ((name, value) for name, value in values if value is None or isinstance(value, Tensor))

    @staticmethod
    def _is_real(name: str) -> bool:
        return RULES[name].real


RULES: dict[str, Rule] = {item.name: item.metadata["rule"] for item in fields(NetworkInputs)}
"""The rule of every input, by its name, which is its name as an argument of the network, too."""
STORED = tuple(name for name, rule in RULES.items() if rule.stored)
"""Inputs that are tensors of the stored sample."""
SAMPLE_RULES = {name: RULES[name] for name in STORED} | {
    item.name: item.metadata["rule"] for item in fields(StoredCameras)
}
"""The rule of every tensor that a stored sample may have beside latent and text."""
