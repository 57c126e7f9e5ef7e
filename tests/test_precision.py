"""Precisions have one name each where a user speaks of them; long ones are understood."""

from __future__ import annotations

import pytest
import torch
from typer.testing import CliRunner

from nemo_cosmos.cli import app
from nemo_cosmos.errors import InputError
from nemo_cosmos.precision import LONG, long_name, short_name, shown_dtype, to_dtype
from nemo_cosmos.prepare.device import resolve_dtype
from nemo_cosmos.reconstruct.video_cli import build_parser

CPU = torch.device("cpu")


@pytest.mark.parametrize(("short", "long"), LONG.items())
def test_both_names_mean_the_same(short: str, long: str) -> None:
    dtype = getattr(torch, long)
    assert to_dtype(short) is to_dtype(long) is resolve_dtype(short, CPU) is resolve_dtype(long, CPU) is dtype
    assert shown_dtype(dtype) == short_name(long) == short_name(short) == short
    assert long_name(short) == long_name(long) == long
    for name in (short, long):
        arguments = build_parser().parse_args(["--video_pattern", "a.mp4", "--dtype", name])
        assert arguments.dtype == short


@pytest.mark.parametrize("name", ["", "int8", "float64", "BF16", "half", "dtype", "load"])
def test_other_words_are_refused_with_the_short_names(name: str) -> None:
    for refuse in (long_name, to_dtype, lambda word: resolve_dtype(word, CPU)):
        with pytest.raises(InputError, match=r"expected .*bf16, fp16, fp32"):
            refuse(name)


@pytest.mark.parametrize("verb", ["prepare", "generate", "convert"])
def test_help_shows_the_short_names_alone(verb: str) -> None:
    shown = CliRunner().invoke(app, [verb, "--help"], env={"COLUMNS": "300"}).output
    assert "bf16" in shown
    assert not any(long in shown for long in LONG.values())
