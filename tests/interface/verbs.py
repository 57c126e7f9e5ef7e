"""Verbs of the command line, called with words."""

from __future__ import annotations

from typing import Any

import typer
from typer.testing import CliRunner


def command(verb: Any, *words: Any) -> str:
    app = typer.Typer()
    app.command()(verb)
    result = CliRunner().invoke(app, [str(word) for word in words])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.output
