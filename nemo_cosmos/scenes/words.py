"""Sentences about what is in a scene."""

from __future__ import annotations

from collections.abc import Sequence


def with_article(name: str) -> str:
    """``a`` or ``an`` before a name."""
    return f"{'an' if name[0] in 'aeiou' else 'a'} {name}"


def enumerated(names: Sequence[str]) -> str:
    """``one, another and a third``."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
