"""The page that shows what post-training changed; pictures, videos and curves are inside the file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from nemo_cosmos.atomic import write_text
from nemo_cosmos.demo.clips import GROUPS, Cut
from nemo_cosmos.demo.pictures import data_uri, line_chart, picture_uri, running_mean
from nemo_cosmos.demo.shown import GENERATED, VERSIONS, Group
from nemo_cosmos.steps import format_seconds

TEMPLATE = Path(__file__).with_name("report_template.html")
CURVES = ("frozen", *GENERATED)
"""Versions whose PSNR is drawn over the frames."""


@dataclass(frozen=True)
class StepTime:
    """One step of a pipeline: what ran, and how long it took when it ran."""

    name: str
    command: str
    seconds: float


@dataclass(frozen=True)
class TrainingClip:
    """A window of the training set; `picture` is one frame, (3, H, W) uint8."""

    caption: str
    picture: Tensor


@dataclass(frozen=True)
class DemoReport:
    """Everything that the report of the demo shows.

    Attributes:
        cut: which windows, and what was used.
        groups: the shown windows.
        described: the clips, in words.
        weights: what post-training started from.
        steps: of the demo.
        training_clips: some of the windows trained on.
        metrics: lines of `metrics.jsonl` of each training.
        config: resolved configuration of the first, YAML.
        versions: of packages.
    """

    cut: Cut
    groups: Sequence[Group]
    described: str
    weights: str
    steps: Sequence[StepTime]
    training_clips: Sequence[TrainingClip]
    metrics: Mapping[str, Sequence[Mapping[str, float]]]
    config: str
    versions: Mapping[str, str]


def training_pictures(folder: Path, shown: int = 24) -> list[TrainingClip]:
    """A few training windows by their middle frame."""
    from nemo_cosmos.data.clips import find_clips
    from nemo_cosmos.data.video import read_frames

    clips = find_clips(folder)
    pictures = []
    for clip in clips[:: max(1, len(clips) // shown)][:shown]:
        video = read_frames(clip.video, keep_damaged=True)
        pictures.append(TrainingClip(clip.read_caption(), video[:, video.shape[1] // 2]))
    return pictures


def write_demo_report(path: str | Path, report: DemoReport) -> None:
    """Writes the report as one HTML file, under a temporary name first."""
    import jinja2

    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["duration"] = format_seconds
    template = environment.from_string(TEMPLATE.read_text(encoding="utf-8"))
    html = template.render(
        report=report,
        headings=GROUPS,
        versions=VERSIONS,
        generated=GENERATED,
        trained_steps=trained_steps(report.metrics),
        total=sum(step.seconds for step in report.steps),
        curves=_loss_curves(report.metrics),
        frame_curve=_frame_curve,
        grid=[(clip.caption, picture_uri(clip.picture)) for clip in report.training_clips],
        first_frame=lambda video: picture_uri(video[:, 0]),
        video=lambda file: data_uri(file.read_bytes(), "video/mp4"),
    )
    write_text(Path(path), html)


def trained_steps(metrics: Mapping[str, Sequence[Mapping[str, float]]]) -> dict[str, int]:
    """The last step of each training."""
    return {name: int(lines[-1]["step"]) if lines else 0 for name, lines in metrics.items()}


def _loss_curves(metrics: Mapping[str, Sequence[Mapping[str, float]]]) -> list[tuple[str, str]]:
    """Title and chart of each curve of the trainings."""
    charts = []
    for title, key in (("Loss", "loss"), ("Mean squared error of the denoised latent", "edm_mse")):
        series = {
            name: running_mean([(line["step"], line[key]) for line in lines if key in line])
            for name, lines in metrics.items()
        }
        if chart := line_chart(series, key):
            charts.append((title, chart))
    return charts


def _frame_curve(group: Group) -> str:
    """PSNR of each frame, the mean over the windows of a group."""
    means = group.figures
    series = {VERSIONS[key]: list(enumerate(means[key].psnr_of_frames, 1)) for key in CURVES}
    return line_chart(series, "PSNR in dB", "frames")
