"""Steps that are skipped because their loss or gradients are not finite: counted, named, and the end of a run when
they repeat. The world models' and the tokenizers' alike."""

from __future__ import annotations

import logging
from collections.abc import Iterable

import torch
from torch import Tensor

logger = logging.getLogger(__name__)
EXIT_STATUS = 3
_NAMED = 16


class SkippedSteps:
    """Counts steps that were skipped.

    Attributes:
        current: whether the step that was just computed is skipped.
        total: since the process began.
        in_a_row: up to the current step.
        samples: of the current step, for people, where it is skipped.
    """

    def __init__(self) -> None:
        self.current = False
        self.total = self.in_a_row = 0
        self.samples: list[str] = []

    def count(self, skipped: bool) -> None:
        """One more step."""
        self.current = skipped
        self.in_a_row = self.in_a_row + 1 if skipped else 0
        self.total += skipped
        self.samples = []

    def tell(self, step: int, limit: int, *, is_first: bool) -> None:
        """Log a step that was skipped; end the run with status 3 after ``limit`` in a row, the saves before stay."""
        if not self.current:
            return
        if is_first:
            logger.warning("step %d skipped: its loss or gradients are not finite; %s", step, self)
        if self.in_a_row < limit:
            return
        if is_first:
            logger.error(
                "%d steps in a row were not finite (trainer.max_bad_steps): the run ends, the saves before stay. Look "
                "at these samples (nemo-cosmos validate reads shards), or lower optimizer.lr, and start the run again",
                self.in_a_row,
            )
        raise SystemExit(EXIT_STATUS)

    def __str__(self) -> str:
        named = sorted(self.samples)
        more = f" and {len(named) - _NAMED} more" if len(named) > _NAMED else ""
        return f"samples {', '.join(named[:_NAMED])}{more}"


def all_finite(tensors: Iterable[Tensor]) -> Tensor:
    """Whether every element of some tensors is finite, as a scalar on their device."""
    # The largest magnitude takes no memory beside, unlike a mask, and is not finite where any element is not.
    norms = [torch.linalg.vector_norm(tensor.detach(), float("inf")).float() for tensor in tensors]
    return torch.isfinite(torch.stack(norms)).all() if norms else torch.tensor(True)
