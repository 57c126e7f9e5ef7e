"""One line of doctor's report."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Verdict = Literal["ok", "note", "fail"]


@dataclass(frozen=True)
class Finding:
    """What was looked at and found; where it is not ``ok``, the text says what to do."""

    verdict: Verdict
    subject: str
    text: str
