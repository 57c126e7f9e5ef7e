"""What a training wrote about its steps."""

from __future__ import annotations

from pathlib import Path

from nemo_cosmos.errors import InputError
from nemo_cosmos.typed import parse_json


def read_metrics(path: str | Path) -> list[dict[str, float]]:
    """The lines of a run's `metrics.jsonl`; a line cut off by an interruption at the end is left out.

    A step that was trained again after an interruption stands twice in the file: the later line counts.
    """
    steps: dict[float, dict[str, float]] = {}
    lines = Path(path).read_text(encoding="utf-8", errors="replace").splitlines()
    for number, line in enumerate(lines, 1):
        try:
            record = parse_json(line)
        except ValueError as error:
            if number == len(lines):
                break
            raise InputError(f"{path}, line {number}: not a JSON object ({error})") from error
        if not isinstance(record, dict) or type(record.get("step")) is not int:
            raise InputError(f"{path}, line {number}: expected a JSON object with an integer step")
        steps[record["step"]] = record
    return [steps[step] for step in sorted(steps)]
