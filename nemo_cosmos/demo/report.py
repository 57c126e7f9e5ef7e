"""Self-contained HTML pages: pictures, videos and curves are inside the file, nothing is loaded from elsewhere."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nemo_cosmos.atomic import write_text
from nemo_cosmos.errors import InputError
from nemo_cosmos.steps import format_seconds
from nemo_cosmos.typed import parse_json

TEMPLATE = Path(__file__).with_name("report_template.html")


@dataclass(frozen=True)
class StepTime:
    """One step of a pipeline: what ran, and how long it took when it ran."""

    name: str
    command: str
    seconds: float


@dataclass(frozen=True)
class TrainingClip:
    """A clip of the training set; `picture` is one frame, (3, H, W) uint8."""

    caption: str
    picture: Tensor


@dataclass(frozen=True)
class HeldOutClip:
    """A clip that was not trained on, in four versions; videos are (3, T, H, W) uint8 of one shape.

    Attributes:
        name: stem of its files.
        caption: what the network was told besides the first frame.
        truth: the clip itself.
        reconstruction: the clip encoded and decoded by the tokenizer.
        generated: what the network made of the first frame and the caption.
        truth_file: mp4 of `truth`.
        generated_file: mp4 of `generated`.
    """

    name: str
    caption: str
    truth: Tensor
    reconstruction: Tensor
    generated: Tensor
    truth_file: Path
    generated_file: Path

    def __post_init__(self) -> None:
        for video in (self.reconstruction, self.generated):
            if video.shape != self.truth.shape:
                raise InputError(
                    f"clip {self.name}: videos of shape {tuple(video.shape)} and {tuple(self.truth.shape)} "
                    "cannot be compared; remove the folder of generated videos and run again"
                )

    @property
    def tokenizer_psnr(self) -> float:
        """Of the reconstruction, in dB, over all frames."""
        return psnr(self.reconstruction, self.truth)

    @property
    def generated_psnr(self) -> float:
        """Of the generated frames, in dB; the first frame was given and does not count."""
        return psnr(self.generated[:, 1:], self.truth[:, 1:])

    @property
    def frozen_psnr(self) -> float:
        """Of repeating the first frame, in dB, over the same frames."""
        return psnr(self.truth[:, :1].expand_as(self.truth)[:, 1:], self.truth[:, 1:])


@dataclass(frozen=True)
class DemoReport:
    """Everything that the report of the demo shows."""

    source: str
    steps: Sequence[StepTime]
    training_clips: Sequence[TrainingClip]
    num_training_clips: int
    held_out_clips: Sequence[HeldOutClip]
    metrics: Sequence[Mapping[str, float]]
    """Lines of `metrics.jsonl`."""
    config: str
    """Resolved configuration, YAML."""
    versions: Mapping[str, str]

    @property
    def psnr(self) -> dict[str, float]:
        """Means over the held-out clips, in dB: tokenizer, generated, frozen."""
        clips = self.held_out_clips
        return {
            name: sum(getattr(clip, f"{name}_psnr") for clip in clips) / len(clips)
            for name in ("tokenizer", "generated", "frozen")
        }


def psnr(video: Tensor, truth: Tensor) -> float:
    """Peak signal-to-noise ratio of two uint8 tensors of one shape, in dB; infinite for equal ones."""
    error = (video.double() - truth.double()).square().mean().item()
    return math.inf if error == 0 else 10 * math.log10(255**2 / error)


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


def write_demo_report(path: str | Path, report: DemoReport) -> None:
    """Writes the report as one HTML file, under a temporary name first."""
    import jinja2

    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    environment.filters["db"] = lambda value: "∞" if math.isinf(value) else f"{value:.2f} dB"
    environment.filters["duration"] = format_seconds
    template = environment.from_string(TEMPLATE.read_text(encoding="utf-8"))
    curves = [
        (title, line_chart(points, label))
        for title, key, label in (
            ("Loss (with the learned log-variance: it can become negative)", "loss", "loss"),
            ("Mean squared error of the denoised latent", "edm_mse", "edm_mse"),
        )
        if (points := [(line["step"], line[key]) for line in report.metrics if key in line])
    ]
    html = template.render(
        report=report,
        psnr=report.psnr,
        total=sum(step.seconds for step in report.steps),
        curves=curves,
        grid=[(clip.caption, picture_uri(clip.picture)) for clip in report.training_clips],
        strip=film_strip,
        first_frame=lambda video: picture_uri(video[:, 0]),
        video=lambda file: data_uri(file.read_bytes(), "video/mp4"),
    )
    write_text(Path(path), html)


def data_uri(content: bytes, kind: str) -> str:
    """Bytes as a `data:` address of a MIME type."""
    return f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"


def picture_uri(picture: Tensor) -> str:
    """A (3, H, W) uint8 picture as a `data:` address (JPEG)."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(picture.permute(1, 2, 0).contiguous().numpy()).save(buffer, "JPEG", quality=88)
    return data_uri(buffer.getvalue(), "image/jpeg")


def film_strip(video: Tensor, count: int = 5) -> str:
    """`count` frames of a (3, T, H, W) uint8 video, evenly spaced, first and last included, side by side."""
    positions = torch.linspace(0, video.shape[1] - 1, min(count, video.shape[1])).round().long()
    gap = torch.full((3, video.shape[2], 4), 255, dtype=torch.uint8)
    parts = [part for position in positions for part in (video[:, position], gap)]
    return picture_uri(torch.cat(parts[:-1], dim=2))


def line_chart(points: Sequence[tuple[float, float]], label: str, *, width: int = 720, height: int = 240) -> str:
    """An SVG line chart of (step, value) points, with the running mean over a fiftieth of the run on top."""
    points = [(x, y) for x, y in points if math.isfinite(y)]
    if not points:
        return ""
    window = max(1, len(points) // 50)
    mean, smooth = 0.0, []
    for number, (x, y) in enumerate(points):
        mean = y if number == 0 else mean + (y - mean) / min(number + 1, window)
        smooth.append((x, mean))
    values = sorted(y for _, y in points)
    # A few spikes must not flatten the curve: the axis ends at the 1st and 99th percentile.
    low, high = values[len(values) // 100], values[len(values) - 1 - len(values) // 100]
    low, high = (low - 0.5, high + 0.5) if low == high else (low - 0.05 * (high - low), high + 0.05 * (high - low))
    first, last = points[0][0], max(points[-1][0], points[0][0] + 1)
    left, right, top, bottom = 64, width - 12, 12, height - 28

    def place(x: float, y: float) -> str:
        y = min(max(y, low), high)
        return (
            f"{left + (x - first) / (last - first) * (right - left):.1f},"
            f"{bottom - (y - low) / (high - low) * (bottom - top):.1f}"
        )

    ticks = []
    for number in range(5):
        y = low + number / 4 * (high - low)
        row = bottom - number / 4 * (bottom - top)
        ticks.append(
            f'<line x1="{left}" x2="{right}" y1="{row:.1f}" y2="{row:.1f}" class="rule"/>'
            f'<text x="{left - 6}" y="{row + 4:.1f}" text-anchor="end">{y:.3g}</text>'
        )
    for step in sorted({round(first + number / 4 * (last - first)) for number in range(5)}):
        column = left + (step - first) / (last - first) * (right - left)
        anchor = "end" if step == last else "middle"
        ticks.append(f'<text x="{column:.1f}" y="{height - 8}" text-anchor="{anchor}">{step}</text>')
    lines = "".join(
        f'<polyline class="{name}" points="{" ".join(place(x, y) for x, y in series)}"/>'
        for name, series in (("raw", points), ("smooth", smooth))
    )
    return (
        f'<svg class="chart" viewBox="0 0 {width} {height}" role="img" aria-label="{label} over steps">'
        f"{''.join(ticks)}{lines}</svg>"
    )


def summary(report: DemoReport) -> dict[str, Any]:
    """The report's figures for `summary.json`: seconds per step, and PSNRs in dB."""
    figures = report.psnr
    return {
        "source": report.source,
        "seconds": {step.name: round(step.seconds, 2) for step in report.steps},
        "total_seconds": round(sum(step.seconds for step in report.steps), 2),
        "psnr_db": {name: round(value, 3) for name, value in figures.items()},
        "generated_over_frozen_db": round(figures["generated"] - figures["frozen"], 3),
        "clips": {
            clip.name: {
                "caption": clip.caption,
                "tokenizer": round(clip.tokenizer_psnr, 3),
                "generated": round(clip.generated_psnr, 3),
                "frozen": round(clip.frozen_psnr, 3),
            }
            for clip in report.held_out_clips
        },
        "training_steps": int(report.metrics[-1]["step"]) if report.metrics else 0,
        "versions": dict(report.versions),
    }
