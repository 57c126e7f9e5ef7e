"""The demo's report: figures are right, and the page needs nothing but itself."""

from __future__ import annotations

import json
import math
from html.parser import HTMLParser
from pathlib import Path

import pytest
import torch
from torch import Tensor

from nemo_cosmos.data.video import write_mp4
from nemo_cosmos.demo.report import (
    DemoReport,
    HeldOutClip,
    StepTime,
    TrainingClip,
    film_strip,
    format_seconds,
    line_chart,
    psnr,
    read_metrics,
    summary,
    write_demo_report,
)
from nemo_cosmos.errors import InputError


def moving_square(start: int, frames: int = 9, size: int = 48) -> Tensor:
    video = torch.full((3, frames, size, size), 40, dtype=torch.uint8)
    for frame in range(frames):
        video[0, frame, 10:24, start + 2 * frame : start + 2 * frame + 14] = 220
    return video


@pytest.fixture
def report(tmp_path: Path) -> DemoReport:
    clips = []
    for number in range(2):
        truth = moving_square(2 + number)
        generated = truth.clone()
        generated[:, 1:] = (generated[:, 1:].int() + 8).clamp(max=255).to(torch.uint8)
        for name, video in (("truth", truth), ("generated", generated)):
            write_mp4(tmp_path / f"{name}{number}.mp4", video, 8.0)
        clips.append(
            HeldOutClip(
                name=f"held_out_{number:05d}",
                caption="a red square moves right <fast> & far",
                truth=truth,
                reconstruction=(truth.int() + 1).to(torch.uint8),
                generated=generated,
                truth_file=tmp_path / f"truth{number}.mp4",
                generated_file=tmp_path / f"generated{number}.mp4",
            )
        )
    return DemoReport(
        source="rendered",
        steps=[StepTime("train", "torchrun -m nemo_cosmos train", 125.0), StepTime("generate", "nemo-cosmos g", 5.5)],
        training_clips=[TrainingClip("a red square", clips[0].truth[:, 0])] * 3,
        num_training_clips=3,
        held_out_clips=clips,
        metrics=[{"step": step, "loss": 1 / (step + 1), "edm_mse": 0.5} for step in range(1, 101)],
        config="seed: 0\n",
        versions={"nemo_cosmos": "0", "torch": "2"},
    )


def test_psnr_of_known_error() -> None:
    zero = torch.zeros(3, 2, 4, 4, dtype=torch.uint8)
    assert psnr(zero + 8, zero) == pytest.approx(20 * math.log10(255 / 8))
    assert psnr(zero, zero) == math.inf


def test_the_given_first_frame_does_not_count(report: DemoReport) -> None:
    clip = report.held_out_clips[0]
    assert clip.generated_psnr == pytest.approx(20 * math.log10(255 / 8))
    error = (clip.truth[:, 1:].double() - clip.truth[:, :1].double()).square().mean().item()
    assert clip.frozen_psnr == pytest.approx(10 * math.log10(255**2 / error))
    assert clip.tokenizer_psnr == pytest.approx(20 * math.log10(255))


def test_summary_has_times_and_psnrs(report: DemoReport) -> None:
    figures = json.loads(json.dumps(summary(report)))
    assert figures["seconds"] == {"train": 125.0, "generate": 5.5}
    assert set(figures["psnr_db"]) == {"tokenizer", "generated", "frozen"}
    difference = figures["psnr_db"]["generated"] - figures["psnr_db"]["frozen"]
    assert figures["generated_over_frozen_db"] == pytest.approx(difference, abs=2e-3)
    assert figures["training_steps"] == 100


def test_page_is_whole_and_loads_nothing(report: DemoReport, tmp_path: Path) -> None:
    class Reader(HTMLParser):
        sources: list[str] = []
        tags: list[str] = []

        def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
            self.tags.append(tag)
            self.sources += [value or "" for name, value in attributes if name in ("src", "href")]

    write_demo_report(tmp_path / "report.html", report)
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    reader = Reader()
    reader.feed(text)
    assert reader.sources and all(source.startswith("data:") for source in reader.sources)
    assert reader.tags.count("video") == 4
    assert reader.tags.count("svg") == 2
    assert "&lt;fast&gt; &amp; far" in text and "<fast>" not in text
    assert "2 min 05 s" in text and "seed: 0" in text
    assert not list(tmp_path.glob("*.tmp"))


def test_videos_of_other_length_are_refused(report: DemoReport) -> None:
    clip = report.held_out_clips[0]
    with pytest.raises(InputError, match="cannot be compared"):
        HeldOutClip("x", "", clip.truth, clip.truth, clip.truth[:, :3], clip.truth_file, clip.generated_file)


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
    chart = line_chart(points, "loss")
    assert "nan" not in chart and "1e+09" not in chart
    assert line_chart([(1, 2.0)], "loss").startswith("<svg")
    assert line_chart([], "loss") == ""


def test_strip_shows_first_and_last_frame() -> None:
    assert film_strip(moving_square(0), 3).startswith("data:image/jpeg;base64,")


def test_times_read_well() -> None:
    assert (format_seconds(4.23), format_seconds(185)) == ("4.2 s", "3 min 05 s")
