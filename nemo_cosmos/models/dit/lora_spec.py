"""Which matrices of a network have low-rank adapters, and of which size."""

from __future__ import annotations

from dataclasses import dataclass

from nemo_cosmos.errors import InputError
from nemo_cosmos.models.dit.families import LORA_TARGETS
from nemo_cosmos.typed import check_fields


@dataclass(frozen=True)
class LoraSpec:
    """Which matrices have adapters, and of which size; a target is a diffusers name or the end of one, as in PEFT."""

    rank: int
    alpha: float
    targets: tuple[str, ...]

    def __post_init__(self) -> None:
        check_fields(self, {"rank": (1, 1 << 16), "alpha": (0, 1e9)}, "lora.")
        object.__setattr__(self, "targets", tuple(self.targets))
        known = [name for names in LORA_TARGETS.values() for name in names]
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
