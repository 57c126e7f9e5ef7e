"""Which matrices of a network have low-rank adapters, and of which size."""

from __future__ import annotations

from dataclasses import dataclass

from nemo_cosmos.errors import InputError
from nemo_cosmos.typed import check_fields

MATRICES = {
    "self_attention.linear_qkv": ("attn1.to_q", "attn1.to_k", "attn1.to_v"),
    "self_attention.linear_proj": ("attn1.to_out.0",),
    "cross_attention.linear_q": ("attn2.to_q",),
    "cross_attention.linear_kv": ("attn2.to_k", "attn2.to_v"),
    "cross_attention.linear_proj": ("attn2.to_out.0",),
    "mlp.linear_fc1": ("ff.net.0.proj",),
    "mlp.linear_fc2": ("ff.net.2",),
}
"""Matrices of a layer that can have adapters -> diffusers' names of the matrices fused in each, in order."""


@dataclass(frozen=True)
class LoraSpec:
    """Which matrices have adapters, and of which size; a target is a diffusers name or the end of one, as in PEFT."""

    rank: int
    alpha: float
    targets: tuple[str, ...]

    def __post_init__(self) -> None:
        check_fields(self, {"rank": (1, 1 << 16), "alpha": (0, 1e9)}, "lora.")
        object.__setattr__(self, "targets", tuple(self.targets))
        known = [name for names in MATRICES.values() for name in names]
        unknown = [t for t in self.targets if not any(_matches(name, t) for name in known)]
        if unknown or not self.targets:
            raise InputError(
                f"lora.targets={list(self.targets)}: {', '.join(unknown) or 'empty'}; adapters can stand on "
                f"{', '.join(known)}, or on an ending of these such as to_q"
            )

    @property
    def scale(self) -> float:
        return self.alpha / self.rank

    def covers(self, name: str) -> bool:
        """Whether the matrix with this diffusers name has an adapter."""
        return any(_matches(name, target) for target in self.targets)


def _matches(name: str, target: str) -> bool:
    return name == target or name.endswith(f".{target}")
