"""The demo: a small world model post-trained on clips, in steps that are public commands, each done once.

The commands and the formats of what they write are those of the large models; only the sizes are small.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from nemo_cosmos.atomic import write_json
from nemo_cosmos.demo.sizes import SIZES as SIZES
from nemo_cosmos.demo.sizes import DemoSize
from nemo_cosmos.demo.weights import PRESET, Weights, find_weights
from nemo_cosmos.steps import Step, StepLog, call_command, command_line
from nemo_cosmos.typed import read_object

TEXT_LENGTH = 64
"""Text tokens of a caption that are kept."""
VERSIONS = ("nemo_cosmos", "torch", "nemo_toolkit", "megatron-core", "diffusers", "transformers", "av")


def run_demo(output: Path, data: Path | None, size: DemoSize, checkpoints: Path | None = None) -> None:
    """Runs the demo into `output`, up to `report.html` and `summary.json`.

    Args:
        output: folder of everything that is written.
        data: folder of videos and captions; none: clips are rendered.
        size: how much of everything.
        checkpoints: what to start from, in the layout of `nemo-cosmos-tiny`; none: that one.

    Raises:
        InputError: the folder has no usable clips, or `steps.json` is damaged.
        SystemExit: a step failed; it has said why.
    """
    from nemo_cosmos.demo.summary import summary_lines

    Demo(Paths(output), data, size, find_weights(checkpoints)).run()
    print("\n".join(summary_lines(read_object(output / "summary.json"))))
    print(output / "report.html")


@dataclass(frozen=True)
class Paths:
    """Where the demo writes."""

    root: Path

    @property
    def rendered(self) -> Path:
        return self.root / "rendered"

    @property
    def data(self) -> Path:
        return self.root / "data"

    @property
    def train_clips(self) -> Path:
        return self.data / "train"

    @property
    def shown_clips(self) -> Path:
        return self.data / "shown"

    @property
    def shards(self) -> Path:
        return self.root / "shards"

    @property
    def run(self) -> Path:
        return self.root / "run"

    @property
    def lora_run(self) -> Path:
        return self.root / "run_lora"

    @property
    def generated(self) -> dict[str, Path]:
        """Folder of the videos of each version."""
        return {name: self.root / "generated" / name for name in ("base", "post_trained", "lora")}


class Demo:
    """The steps of one demo, and what they are about."""

    def __init__(self, paths: Paths, data: Path | None, size: DemoSize, weights: Weights) -> None:
        from nemo_cosmos.demo.plan import plan_clips

        self.paths, self.size, self.weights = paths, size, weights
        self.plan = None if data is None else plan_clips(data, size)
        self.described = "rendered by nemo-cosmos sample-data" if data is None else f"of {data}"
        self.frames = size.frames[0] if self.plan is None else self.plan.frames
        self.pixels = size.area if self.plan is None else self.plan.size

    def run(self) -> None:
        """Does the steps that are not done yet."""
        self.paths.root.mkdir(parents=True, exist_ok=True)
        self.log = StepLog(self.paths.root / "steps.json")
        steps = self.steps()
        with one_thread():
            self.log.perform([*steps, self._reporting(steps)])

    def steps(self) -> list[Step]:
        """All but the report, in order."""
        paths, weights, size = self.paths, self.weights, self.size
        steps = [] if self.plan else [self._rendering()]
        steps += [self._cutting(), self._preparation()]
        return [
            *steps,
            self._training("train", "demo_video2world", paths.run, size.training_steps),
            self._training("train LoRA", "demo_video2world_lora", paths.lora_run, size.lora_steps),
            self._generation("base", [f"--model={weights.network}", f"--preset={PRESET}"]),
            self._generation("post_trained", [f"--model={paths.run}"]),
            self._generation("lora", [f"--model={paths.lora_run}"]),
        ]

    def _rendering(self) -> Step:
        height, width = self.size.area
        arguments = [
            "sample-data",
            str(self.paths.rendered),
            f"--clips={self.size.scenes}",
            "--held-out=0",
            f"--seed={RENDERED_SEED}",
            f"--size={height}x{width}",
            f"--frames={self.size.scene_frames}",
        ]
        return self._command("sample-data", arguments, [self.paths.rendered])

    def _cutting(self) -> Step:
        from nemo_cosmos.demo.clips import cut_clips
        from nemo_cosmos.demo.plan import plan_clips

        def cut() -> None:
            plan = self.plan or plan_clips(self.paths.rendered / "train", self.size)
            cut_clips(plan, self.paths.data, self.size, self.described)

        sources = self.plan.sources if self.plan else ()
        videos = [source.clip.video for source in sources]
        request = {
            "clips": [[str(video), video.stat().st_size, video.stat().st_mtime_ns] for video in videos],
            "captions": [source.clip.read_caption() if source.clip.has_caption else "" for source in sources],
            **asdict(self.size),
        }
        shown = f"cut the clips {self.described} into windows of {self.frames} frames"
        return Step("clips", request, cut, [self.paths.data], shown)

    def _preparation(self) -> Step:
        height, width = self.pixels
        arguments = [
            "prepare",
            str(self.paths.train_clips),
            str(self.paths.shards),
            f"--tokenizer={self.weights.tokenizer}",
            f"--text-encoder={self.weights.text_encoder}",
            f"--text-length={TEXT_LENGTH}",
            f"--frames={self.frames}",
            f"--size={height}x{width}",
        ]
        # The windows were written here: what looks combed in so small a picture is its pattern.
        arguments.append("--keep-damaged")
        return self._command("prepare", arguments, [self.paths.shards], depends_on=self.weights.digest())

    def _training(self, name: str, experiment: str, run: Path, steps: int) -> Step:
        size = self.size
        arguments = [
            "train",
            f"experiment={experiment}",
            f"data.path={self.paths.shards}",
            f"data.micro_batch={size.batch // size.processes}",
            f"data.global_batch={size.batch}",
            f"trainer.max_steps={steps}",
            f"optimizer.cycle_steps={steps}",
            f"checkpoint.every_n_steps={max(1, steps // 2)}",
            f"output_dir={run}",
        ]
        if not self.weights.packaged:
            arguments += [f"model.init_from={self.weights.network}", "data.tokenizer=null"]
        return self._command(name, arguments, [run], processes=size.processes)

    def _generation(self, version: str, model: list[str]) -> Step:
        height, width = self.pixels
        out = self.paths.generated[version]
        arguments = [
            "generate",
            *model,
            f"--tokenizer={self.weights.tokenizer}",
            f"--text-encoder={self.weights.text_encoder}",
            f"--source={self.paths.shown_clips}",
            f"--output={out}",
            f"--height={height}",
            f"--width={width}",
            f"--num-frames={self.frames}",
            f"--num-steps={self.size.sampling_steps}",
            "--guidance=0",
            "--crf=12",
        ]
        return self._command(f"generate {version.replace('_', '-')}", arguments, [out])

    def _reporting(self, measured: Sequence[Step]) -> Step:
        root = self.paths.root
        outputs = [root / "reconstructed", root / "report.html", root / "summary.json"]
        return Step("report", self.described, lambda: self._report(measured), outputs, f"{outputs[1]}")

    def _command(
        self, name: str, arguments: list[str], outputs: list[Path], *, processes: int = 1, depends_on: str = ""
    ) -> Step:
        shown, call = command_line(arguments, processes)
        run: Callable[[], None] = lambda: call_command(name, call)  # noqa: E731
        return Step(name, [*arguments, processes, depends_on], run, outputs, shown)

    def _report(self, steps: Sequence[Step]) -> None:
        """Measures the generated videos and writes `report.html` and `summary.json`."""
        import importlib.metadata

        from nemo_cosmos.demo.clips import read_cut
        from nemo_cosmos.demo.report import DemoReport, StepTime, training_pictures, write_demo_report
        from nemo_cosmos.demo.runs import read_metrics
        from nemo_cosmos.demo.shown import read_groups
        from nemo_cosmos.demo.summary import summary
        from nemo_cosmos.models.video_tokenizer import open_tokenizer

        start = time.perf_counter()
        paths = self.paths
        cut = read_cut(paths.data)
        tokenizer = open_tokenizer(self.weights.tokenizer_folder)
        groups = read_groups(cut, paths.shown_clips, paths.generated, paths.root / "reconstructed", tokenizer)
        times = [StepTime(step.name, step.command, self.log.records[step.name]["seconds"]) for step in steps]
        times.append(StepTime("report", "measures the videos and writes this page", time.perf_counter() - start))
        report = DemoReport(
            cut=cut,
            groups=groups,
            described=f"clips {self.described}",
            weights=self.weights.network,
            steps=times,
            training_clips=training_pictures(paths.train_clips),
            metrics={
                "post-training": read_metrics(paths.run / "metrics.jsonl"),
                "LoRA": read_metrics(paths.lora_run / "metrics.jsonl"),
            },
            config=(paths.run / "config.yaml").read_text(encoding="utf-8"),
            versions={name: importlib.metadata.version(name) for name in VERSIONS},
        )
        write_demo_report(paths.root / "report.html", report)
        write_json(paths.root / "summary.json", summary(report))


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """PyTorch in this process on one thread, as in the processes of the steps: the tensors are too small to share."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


RENDERED_SEED = 18_000_000
"""Of rendered clips: far from the seeds that the tiny model was trained on."""
