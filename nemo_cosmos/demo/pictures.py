"""Pictures, videos and curves as text inside a page, so that it loads nothing from elsewhere."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

COLOURS = ("#20639b", "#2f7d32", "#b3541e", "#8a8f98")
"""Of curves, in order; four are told apart by the colour-blind too."""
Points = Sequence[tuple[float, float]]


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


def running_mean(points: Points) -> list[tuple[float, float]]:
    """Each value replaced by the mean over a fiftieth of the run up to it."""
    window = max(1, len(points) // 50)
    mean, smooth = 0.0, []
    for number, (x, y) in enumerate(points):
        mean = y if number == 0 else mean + (y - mean) / min(number + 1, window)
        smooth.append((x, mean))
    return smooth


def line_chart(
    series: Mapping[str, Points], label: str, across: str = "steps", *, width: int = 720, height: int = 240
) -> str:
    """An SVG chart of one line for each name, through its (x, value) points, with a legend where there are several.

    Values that are not finite are left out; empty when none is left.
    """
    lines = {name: [(x, y) for x, y in points if math.isfinite(y)] for name, points in series.items()}
    lines = {name: points for name, points in lines.items() if points}
    if not lines:
        return ""
    values = sorted(y for points in lines.values() for _, y in points)
    # A few spikes must not flatten the curve: the axis ends at the 1st and 99th percentile.
    low, high = values[len(values) // 100], values[len(values) - 1 - len(values) // 100]
    low, high = (low - 0.5, high + 0.5) if low == high else (low - 0.05 * (high - low), high + 0.05 * (high - low))
    first = min(points[0][0] for points in lines.values())
    last = max(first + 1, *(points[-1][0] for points in lines.values()))
    left, right, top, bottom = 64, width - 12, 12, height - 28

    def place(x: float, y: float) -> str:
        y = min(max(y, low), high)
        return (
            f"{left + (x - first) / (last - first) * (right - left):.1f},"
            f"{bottom - (y - low) / (high - low) * (bottom - top):.1f}"
        )

    parts = []
    for number in range(5):
        y = low + number / 4 * (high - low)
        row = bottom - number / 4 * (bottom - top)
        parts.append(
            f'<line x1="{left}" x2="{right}" y1="{row:.1f}" y2="{row:.1f}" class="rule"/>'
            f'<text x="{left - 6}" y="{row + 4:.1f}" text-anchor="end">{y:.3g}</text>'
        )
    for step in sorted({round(first + number / 4 * (last - first)) for number in range(5)}):
        column = left + (step - first) / (last - first) * (right - left)
        anchor = "end" if step == last else "middle"
        parts.append(f'<text x="{column:.1f}" y="{height - 8}" text-anchor="{anchor}">{step}</text>')
    for (name, points), colour in zip(lines.items(), COLOURS, strict=False):
        path = " ".join(place(x, y) for x, y in points)
        parts.append(f'<polyline stroke="{colour}" points="{path}"><title>{name}</title></polyline>')
    return (
        f'<svg class="chart" viewBox="0 0 {width} {height}" role="img" aria-label="{label} over {across}">'
        f"{''.join(parts)}</svg>{_legend(list(lines))}"
    )


def _legend(names: list[str]) -> str:
    if len(names) < 2:
        return ""
    marks = [
        f'<span><i style="background:{colour}"></i>{name}</span>' for name, colour in zip(names, COLOURS, strict=False)
    ]
    return f'<div class="legend">{"".join(marks)}</div>'
