"""The demo: from clips to generated video in six steps, each a public command, each done once.

The commands and the formats of what they write are those of the large models; only the sizes are small.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from nemo_cosmos.atomic import write_json
from nemo_cosmos.demo.sizes import SIZES as SIZES
from nemo_cosmos.demo.sizes import DemoSize
from nemo_cosmos.steps import Step, StepLog, call_command, command_line

if TYPE_CHECKING:
    from nemo_cosmos.demo.report import HeldOutClip, TrainingClip


TEXT_WIDTH = 64
"""Width of the random text encoder of the demo."""
TEXT_LENGTH = 64
"""Text tokens of a caption that are kept."""
PROCESSES = 2
VERSIONS = ("nemo_cosmos", "torch", "nemo_toolkit", "megatron-core", "diffusers", "transformers", "av")


def run_demo(output: Path, data: Path | None, size: DemoSize) -> None:
    """Runs the demo into `output`, up to `report.html` and `summary.json`.

    Args:
        data: folder of videos and captions; none: clips are rendered.

    Raises:
        InputError: the folder has no usable clips, or `steps.json` is damaged.
        SystemExit: a step failed; it has said why.
    """
    output.mkdir(parents=True, exist_ok=True)
    log = StepLog(output / "steps.json")
    log.perform(_steps(Paths(output), data, size, log))
    summary = json.loads((output / "summary.json").read_text(encoding="utf-8"))
    decibels = summary["psnr_db"]
    print(
        f"generated {decibels['generated']:.2f} dB, frozen first frame {decibels['frozen']:.2f} dB, "
        f"tokenizer {decibels['tokenizer']:.2f} dB (PSNR on held-out clips)\n{output / 'report.html'}"
    )


@dataclass(frozen=True)
class Paths:
    """Where the demo writes."""

    root: Path

    @property
    def train_clips(self) -> Path:
        return self.root / "data" / "train"

    @property
    def held_out_clips(self) -> Path:
        return self.root / "data" / "held_out"

    @property
    def tokenizer_run(self) -> Path:
        return self.root / "tokenizer_run"

    @property
    def tokenizer(self) -> Path:
        return self.tokenizer_run / "tokenizer"

    @property
    def text_encoder(self) -> Path:
        return self.root / "text_encoder"

    @property
    def shards(self) -> Path:
        return self.root / "shards"

    @property
    def run(self) -> Path:
        return self.root / "run"


def _steps(paths: Paths, data: Path | None, size: DemoSize, log: StepLog) -> list[Step]:
    steps = [_clips_step(paths, data, size)]
    height, width = clip_size(data, size)

    def command(name: str, arguments: list[str], outputs: list[Path], *, processes: int = 1) -> Step:
        shown, call = command_line(arguments, processes)
        return Step(name, arguments, lambda: call_command(name, call), outputs, shown)

    steps.append(
        command(
            "tokenizer",
            [
                "tokenizer",
                "train",
                "experiment=demo_tokenizer",
                f"output_dir={paths.tokenizer_run}",
                f"data.train={paths.train_clips}/videos/*.mp4",
                f"data.val={paths.held_out_clips}/videos/*.mp4",
                f"data.num_frames={size.tokenizer_cut[0]}",
                f"data.crop=[{size.tokenizer_cut[1]},{size.tokenizer_cut[1]}]",
                f"model.overrides.chunk_frames={size.frames}",
                f"trainer.max_steps={size.tokenizer_steps}",
                f"optimizer.decay_steps={size.tokenizer_steps}",
            ],
            [paths.tokenizer_run],
        )
    )
    arguments = [
        "prepare",
        str(paths.train_clips),
        str(paths.shards),
        f"--tokenizer={paths.tokenizer}",
        f"--text-encoder={paths.text_encoder}",
        f"--text-length={TEXT_LENGTH}",
        f"--frames={size.frames}",
        f"--size={height}x{width}",
        "--latent-dtype=fp32",
    ]
    shown, call = command_line(arguments, 1)

    def prepare() -> None:
        from nemo_cosmos.models.text import save_tiny_text_encoder

        save_tiny_text_encoder(paths.text_encoder, TEXT_WIDTH)
        call_command("prepare", call)

    steps.append(Step("prepare", arguments, prepare, [paths.shards, paths.text_encoder], shown))
    steps.append(
        command(
            "train",
            [
                "train",
                "experiment=demo_video2world",
                f"output_dir={paths.run}",
                f"data.path={paths.shards}",
                f"data.text_length={TEXT_LENGTH}",
                f"model.overrides.text_width={TEXT_WIDTH}",
                f"data.micro_batch={size.batch}",
                f"data.global_batch={size.batch}",
                f"trainer.max_steps={size.training_steps}",
                f"optimizer.cycle_steps={size.training_steps}",
            ],
            [paths.run],
            processes=PROCESSES,
        )
    )
    steps.append(
        command(
            "generate",
            [
                "generate",
                f"--model={paths.run}",
                f"--tokenizer={paths.tokenizer}",
                f"--text-encoder={paths.text_encoder}",
                f"--source={paths.held_out_clips}",
                f"--output={paths.root / 'generated'}",
                f"--height={height}",
                f"--width={width}",
                f"--num-frames={size.frames}",
                f"--num-steps={size.sampling_steps}",
                "--guidance=0",
                "--crf=12",
            ],
            [paths.root / "generated"],
        )
    )
    described = "rendered by nemo-cosmos sample-data" if data is None else f"from {data}"
    outputs = [paths.root / "truth", paths.root / "report.html", paths.root / "summary.json"]
    measured = list(steps)
    steps.append(Step("report", described, lambda: _report(paths, described, measured, log), outputs, f"{outputs[1]}"))
    return steps


def _clips_step(paths: Paths, data: Path | None, size: DemoSize) -> Step:
    folder = paths.root / "data"
    if data is None:
        arguments = [
            "sample-data",
            str(folder),
            f"--clips={size.clips}",
            f"--held-out={size.held_out}",
            f"--size={size.side}x{size.side}",
            f"--frames={size.frames}",
        ]
        shown, call = command_line(arguments, 1)
        return Step("sample-data", arguments, lambda: call_command("sample-data", call), [folder], shown)
    from nemo_cosmos.demo.clips import cut_clips, list_clips

    request = {"clips": [[str(clip.video), clip.video.stat().st_size] for clip in list_clips(data)], **asdict(size)}
    return Step(
        "clips",
        request,
        lambda: cut_clips(data, folder, size),
        [folder],
        f"cut {data} into clips of {size.frames} frames",
    )


def clip_size(data: Path | None, size: DemoSize) -> tuple[int, int]:
    """(height, width) of the demo's clips in pixels."""
    if data is None:
        return size.side, size.side
    from nemo_cosmos.demo.clips import fitting_size, list_clips

    return fitting_size(list_clips(data), size.side)


def _report(paths: Paths, source: str, steps: Sequence[Step], log: StepLog) -> None:
    """Measures the generated clips and writes `report.html` and `summary.json`."""
    import importlib.metadata

    from nemo_cosmos.demo.report import DemoReport, StepTime, read_metrics, summary, write_demo_report

    start = time.perf_counter()
    pictures, count = _training_clips(paths)
    held_out = _held_out_clips(paths)
    times = [StepTime(step.name, step.command, log.records[step.name]["seconds"]) for step in steps]
    times.append(StepTime("report", "measures the clips and writes this page", time.perf_counter() - start))
    report = DemoReport(
        source=source,
        steps=times,
        training_clips=pictures,
        num_training_clips=count,
        held_out_clips=held_out,
        metrics=read_metrics(paths.run / "metrics.jsonl"),
        config=(paths.run / "config.yaml").read_text(encoding="utf-8"),
        versions={name: importlib.metadata.version(name) for name in VERSIONS},
    )
    write_demo_report(paths.root / "report.html", report)
    write_json(paths.root / "summary.json", summary(report))


def _training_clips(paths: Paths, shown: int = 24) -> tuple[list[TrainingClip], int]:
    """A few training clips by their middle frame, and how many there are."""
    from nemo_cosmos.data.clips import find_clips
    from nemo_cosmos.data.video import read_frames
    from nemo_cosmos.demo.report import TrainingClip

    clips = find_clips(paths.train_clips)
    chosen = clips[:: max(1, len(clips) // shown)][:shown]
    pictures = []
    for clip in chosen:
        video = read_frames(clip.video)
        pictures.append(TrainingClip(clip.read_caption(), video[:, video.shape[1] // 2]))
    return pictures, len(clips)


def _held_out_clips(paths: Paths) -> list[HeldOutClip]:
    """The held-out clips with their reconstruction and what was generated; copies the clips to `truth/`."""
    import torch

    from nemo_cosmos.data.clips import find_clips
    from nemo_cosmos.data.video import read_frames
    from nemo_cosmos.demo.report import HeldOutClip
    from nemo_cosmos.models.video_tokenizer import open_tokenizer
    from nemo_cosmos.pixels import from_levels, to_uint8

    tokenizer = open_tokenizer(paths.tokenizer)
    (paths.root / "truth").mkdir(exist_ok=True)
    results = []
    for clip in find_clips(paths.held_out_clips):
        truth_file = paths.root / "truth" / f"{clip.video.stem}.mp4"
        shutil.copyfile(clip.video, truth_file)
        truth = read_frames(clip.video)
        with torch.no_grad():
            decoded = tokenizer.decode(tokenizer.encode(from_levels(truth[None])))
        generated_file = paths.root / "generated" / f"{clip.video.stem}.mp4"
        results.append(
            HeldOutClip(
                name=clip.video.stem,
                caption=clip.read_caption(),
                truth=truth,
                reconstruction=to_uint8(decoded[0]),
                generated=read_frames(generated_file),
                truth_file=truth_file,
                generated_file=generated_file,
            )
        )
    return results
