"""Curves and lines of metrics survive what runs leave behind."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from nemo_cosmos.demo.pictures import line_chart, running_mean
from nemo_cosmos.demo.runs import read_metrics
from nemo_cosmos.errors import InputError
from nemo_cosmos.steps import format_seconds


def test_metrics_of_an_interrupted_run(tmp_path: Path) -> None:
    lines = [{"step": 1, "loss": 3.0}, {"step": 2, "loss": 2.0}, {"step": 2, "loss": 1.5}, {"step": 3, "loss": 1.0}]
    file = tmp_path / "metrics.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"step": 4, "lo', encoding="utf-8")
    assert [line["loss"] for line in read_metrics(file)] == [3.0, 1.5, 1.0]
    file.write_text('{"step": 1}\nbroken\n{"step": 2}\n', encoding="utf-8")
    with pytest.raises(InputError, match="line 2"):
        read_metrics(file)


def test_chart_survives_spikes_and_nan() -> None:
    points = [(step, 1.0 + 0.01 * step) for step in range(200)] + [(200, math.nan), (201, 1e9)]
    chart = line_chart({"loss": points}, "loss")
    assert "nan" not in chart and "1e+09" not in chart
    assert line_chart({"loss": [(1, 2.0)]}, "loss").startswith("<svg")
    assert line_chart({"loss": []}, "loss") == ""


def test_chart_of_several_lines_names_them() -> None:
    chart = line_chart({"base": [(1, 2.0), (2, 3.0)], "LoRA": [(1, 1.0), (2, 2.5)]}, "PSNR", "frames")
    assert chart.count("<polyline") == 2 and 'aria-label="PSNR over frames"' in chart
    legend = chart.partition("</svg>")[2]
    assert legend.index(">base<") < legend.index(">LoRA<")


def test_running_mean_starts_at_the_first_value() -> None:
    assert running_mean([(1, 4.0), (2, 2.0)]) == [(1, 4.0), (2, 2.0)]
    smooth = running_mean([(step, float(step % 2)) for step in range(200)])
    assert smooth[0][1] == 0.0 and 0.3 < smooth[-1][1] < 0.7


def test_times_read_well() -> None:
    assert (format_seconds(4.23), format_seconds(185)) == ("4.2 s", "3 min 05 s")
