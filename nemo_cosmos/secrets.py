"""What is a secret, and how it stays out of everything that is saved or shown.

Known by three signs: the value of an environment variable with such a name, the form of common access tokens, and a
value under a key with such a name.
"""

from __future__ import annotations

import logging
import os
import re
from typing import Any

_NAME = re.compile(
    r"(?:^|[._-])(?:(?:auth|access|bearer|hub|hf|wandb)?_?token|(?:api|access|private|secret)[_-]?key|apikey|secret"
    r"|password|passwd|credentials?)(?:$|[._-])",
    re.IGNORECASE,
)
_FORM = re.compile(
    r"\b(?:hf_[A-Za-z0-9]{16,}|wandb_v\d_\w{16,}|sk-[\w-]{20,}|nvapi-[\w-]{20,}|gh[pousr]_[A-Za-z0-9]{20,}"
    r"|github_pat_\w{20,}|AKIA[0-9A-Z]{16}|eyJ[\w-]{10,}\.[\w-]{10,}\.[\w-]{5,})|(?<=://)[^/\s:@]+:[^/\s@]+(?=@)"
)
SHORTEST = 8
"""Characters of an environment variable's value that is looked for; shorter ones would be found in any text."""
HIDDEN = "***"


def is_secret_name(name: str) -> bool:
    """Whether a variable or key of this name holds a secret: HF_TOKEN, WANDB_API_KEY, logging.api_key."""
    return _NAME.search(name) is not None


def holds_secret(text: str) -> bool:
    """Whether a text has the form of an access token or the value of a secret environment variable in it."""
    return _FORM.search(text) is not None or any(value in text for value in _of_environment())


def redact(text: str) -> str:
    """The text with ``***`` for every secret in it."""
    for value in _of_environment():
        text = text.replace(value, HIDDEN)
    return _FORM.sub(HIDDEN, text)


def hide_secrets_in_logs() -> None:
    """From now on no log line of this process has a secret in it, whichever library writes it."""
    logging.setLogRecordFactory(_RedactedRecord)


class _RedactedRecord(logging.LogRecord):
    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        if self.exc_info and self.exc_info[0] is not None:
            # What a formatter would make itself, and keeps where it is there.
            self.exc_text = redact(logging.Formatter().formatException(self.exc_info))

    def getMessage(self) -> str:
        return redact(super().getMessage())


def _of_environment() -> list[str]:
    """Values of secret variables, the longest first, so that one that begins like another is hidden whole."""
    found = {v for name, v in os.environ.items() if len(v) >= SHORTEST and is_secret_name(name)}
    return sorted((v for v in found if "/" not in v[:1]), key=len, reverse=True)
