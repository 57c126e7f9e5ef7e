"""Precisions have one name each where a user speaks of them; long ones are understood."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from nemo_cosmos.cli import app
from nemo_cosmos.config import TrainConfig, dump_config, load_config
from nemo_cosmos.errors import InputError
from nemo_cosmos.precision import LONG, long_name, short_name, shown_dtype, to_dtype
from nemo_cosmos.prepare.device import resolve_dtype
from nemo_cosmos.reconstruct.video_cli import build_parser
from nemo_cosmos.run_folder import write_config

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


@pytest.mark.parametrize(
    ("word", "name"), [("bfloat16", "bf16"), ("float32", "fp32"), ("bf16", "bf16"), ("fp32", "fp32")]
)
def test_settings_take_both_names_and_keep_the_short_one(word: str, name: str) -> None:
    overrides = ["experiment=demo_video2world", f"model.rope_table_dtype={word}", f"trainer.precision={word}"]
    config = load_config(TrainConfig, overrides)
    assert (config.model.rope_table_dtype, config.trainer.precision) == (name, name)
    with pytest.raises(InputError, match=r"trainer.precision=float16: expected one of fp32, bf16$"):
        load_config(TrainConfig, ["experiment=demo_video2world", "trainer.precision=float16"])


def test_a_run_of_an_earlier_version_has_changed_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    config = load_config(TrainConfig, ["experiment=demo_video2world"])
    before = dump_config(config).replace("rope_table_dtype: fp32", "rope_table_dtype: float32")
    assert "float32" in before
    (tmp_path / "config.yaml").write_text(before)
    write_config(tmp_path, config, resuming=True)
    assert caplog.text == ""
    assert (tmp_path / "config.yaml").read_text() == dump_config(config)
