"""The figures of the demo as numbers: `summary.json`, and the lines printed at the end."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from nemo_cosmos.demo.clips import GROUPS

if TYPE_CHECKING:
    from nemo_cosmos.demo.figures import Figures
    from nemo_cosmos.demo.report import DemoReport

NAMES = {
    "base": "base",
    "post_trained": "post-trained",
    "lora": "LoRA",
    "frozen": "frozen first frame",
    "reconstruction": "tokenizer",
}
"""Of the versions in a printed line, in its order."""


def summary(report: DemoReport) -> dict[str, Any]:
    """What was used, seconds per step, and of each group the mean figures, or why there are none."""
    from nemo_cosmos.demo.report import trained_steps

    groups: dict[str, Any] = {
        kind: {"count": 0, "reason": reason} for kind, reason in report.cut.missing.items() if kind in GROUPS
    }
    for group in report.groups:
        means = {key: _numbers(figures) for key, figures in group.figures.items()}
        groups[group.kind] = {"count": len(group.windows), **means}
    return {
        "weights": report.weights,
        "used": report.cut.used,
        "frames": report.cut.frames,
        "size": report.cut.size,
        "training_windows_used": report.cut.training_windows,
        "seconds": {step.name: round(step.seconds, 2) for step in report.steps},
        "total_seconds": round(sum(step.seconds for step in report.steps), 2),
        "groups": groups,
        "windows": {
            window.name: {
                "caption": window.caption,
                **{key: _numbers(figures) for key, figures in window.figures.items()},
            }
            for group in report.groups
            for window in group.windows
        },
        "training_steps": trained_steps(report.metrics),
        "versions": dict(report.versions),
    }


def summary_lines(values: Mapping[str, Any]) -> list[str]:
    """A line for each group of `summary.json`: the PSNR of each version, or why there is none.

    Figures of windows that were trained on would pass for what the network can do, and are not printed.
    """
    lines = []
    for kind, group in values["groups"].items():
        if not group["count"]:
            lines.append(group["reason"])
            continue
        if kind == "training_windows":
            lines.append(f"{GROUPS[kind].lower()} ({group['count']}): shown in the report, without figures")
            continue
        figures = ", ".join(f"{name} {group[key]['psnr_db']:.2f} dB" for key, name in NAMES.items())
        lines.append(f"{GROUPS[kind].lower()} ({group['count']}): {figures}")
    return lines


def _numbers(figures: Figures) -> dict[str, Any]:
    def rounded(value: Any) -> Any:
        return [round(one, 3) for one in value] if isinstance(value, list) else round(value, 4)

    return {key: rounded(value) for key, value in asdict(figures).items()}
