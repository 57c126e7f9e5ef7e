"""Which matrices of a network have low-rank adapters, of which size, and what is trained whole beside them."""

from __future__ import annotations

from dataclasses import dataclass

from nemo_cosmos.errors import InputError
from nemo_cosmos.models.dit.families import ALSO_TRAINED, LORA_TARGETS
from nemo_cosmos.typed import check_fields


@dataclass(frozen=True)
class LoraSpec:
    """Which matrices have adapters, and of which size; a target is a diffusers name or the end of one, as in PEFT.

    Parts named in ``also_train`` have no adapters: all their weights are trained.
    """

    rank: int
    alpha: float
    targets: tuple[str, ...]
    also_train: tuple[str, ...] = ()

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

        object.__setattr__(self, "also_train", tuple(dict.fromkeys(self.also_train)))
        if other := [name for name in self.also_train if name not in ALSO_TRAINED]:
            raise InputError(
                f"lora.also_train={list(self.also_train)}: {', '.join(other)}; beside adapters may be trained "
                f"{', '.join(ALSO_TRAINED)}"
            )

    @property
    def scale(self) -> float:
        return self.alpha / self.rank

    def covers(self, name: str) -> bool:
        """Whether the matrix with this diffusers name has an adapter."""
        return any(_matches(name, target) for target in self.targets)

    def trains_whole(self, name: str) -> bool:
        """Whether all of the parameter that we call so is trained."""
        return name.split(".")[0] in self.also_train


def _matches(name: str, target: str) -> bool:
    return name == target or name.endswith(f".{target}")
