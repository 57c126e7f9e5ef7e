"""``metrics.jsonl``; the world models' and the tokenizers' alike."""

from __future__ import annotations

import json
import logging
import math
from pathlib import Path
from typing import Any

from nemo_cosmos.atomic import put_file

logger = logging.getLogger(__name__)


def append(path: Path, record: dict[str, float]) -> None:
    """Add one line; numbers that are not finite become null, for which JSON has no word."""
    with path.open("a") as file:
        file.write(json.dumps({key: finite_or_none(value) for key, value in record.items()}) + "\n")


def finite_or_none(value: float) -> float | None:
    """None instead of what JSON has no word for."""
    return value if math.isfinite(value) else None


def forget_later_steps(path: Path, step: int) -> None:
    """Keep the lines up to a step; a resumed run writes the later ones again.

    What is no line of metrics (cut off by a kill, bytes that are no text, another object) is left out with a warning:
    it never keeps a run from going on.

    Args:
        step: where the run goes on; below 0 keeps nothing.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.unlink(missing_ok=True)
    if not path.is_file():
        return
    damaged = 0
    with path.open("rb") as lines, temporary.open("wb") as kept:
        for line in lines:
            found = step_of(line)
            damaged += found is None and bool(line.strip())
            if found is not None and found <= step:
                kept.write(line.strip() + b"\n")
    put_file(temporary, path)
    if damaged:
        logger.warning("%s: %d damaged lines are left out", path, damaged)


def step_of(line: bytes) -> int | float | None:
    """The step of a line of metrics, None where it is none."""
    try:
        record: Any = json.loads(line.decode("utf-8"))
    except (ValueError, RecursionError):
        return None
    step = record.get("step") if isinstance(record, dict) else None
    return step if isinstance(step, int | float) and not isinstance(step, bool) and step == step else None
