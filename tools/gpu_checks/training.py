"""Post-training: a save, a kill, resumed runs, exported files."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import torch

from gpu_checks.commands import TIMEOUT, Context, Failure, host_bytes, kill
from gpu_checks.inputs import base, count, network, shards
from gpu_checks.machine import GIB, NAN
from nemo_cosmos.checkpoint.distributed import DistributedCheckpoint
from nemo_cosmos.checkpoint.files import iteration_name, weights_file, write_latest

SAVED, LAST = 3, 5
"""A run saves after step 3 and is killed after step 5; resumed runs repeat steps 4 and 5."""
FIXED_ORDER = "trainer.deterministic=true"
"""For the runs that must agree bit for bit; the others take the kernels that users get, which are faster."""
FULL, TINY = "video2world_7b_example_hdvila", "demo_video2world"


class Training:
    """One training command, watched through its metrics."""

    def __init__(self, context: Context, name: str, run: Path, gpus: Sequence[int], settings: Sequence[str]) -> None:
        self.context, self.name, self.run = context, name, run
        self.record: dict[int, dict[str, float]] | None = None
        """Its metrics, kept when their file is made anew."""
        self.seconds = 0.0
        self.started = time.time()
        self.process = context.start(name, ["train", *settings, f"output_dir={run}"], gpus)
        self.peak_host = 0

    def wait(self, condition: Callable[[], bool], what: str) -> None:
        while not condition():
            if self.process.poll() is not None:
                raise Failure(f"{self.name}: ended before {what}\n{self.context.end_of(self.name)}")
            if time.time() - self.started > TIMEOUT:
                kill(self.process)
                raise Failure(f"{self.name}: {what} took too long\n{self.context.end_of(self.name)}")
            self.peak_host = max(self.peak_host, host_bytes(self.process.pid))
            time.sleep(0.3)

    def steps(self) -> dict[int, dict[str, float]]:
        if self.record is not None:
            return self.record
        path = self.run / "metrics.jsonl"
        lines = path.read_text().splitlines(keepends=True) if path.exists() else []
        records = [json.loads(line) for line in lines if line.endswith("\n")]
        return {record["step"]: record for record in records}

    def wait_for_step(self, step: int) -> None:
        self.wait(lambda: step in self.steps(), f"step {step}")
        self.seconds = time.time() - self.started

    def losses(self) -> dict[int, float]:
        return {step: record["loss"] for step, record in self.steps().items()}

    def memory(self) -> float:
        return max(record["memory_bytes"] for record in self.steps().values()) / GIB

    def said(self, beginning: str) -> str:
        lines = self.context.log(self.name).read_text(errors="replace").splitlines()
        return next((line for line in lines if line.startswith(beginning)), "")


def common_settings(context: Context, saved: int) -> list[str]:
    """Of every run that is checked: it saves after step ``saved`` and is killed, or names another end."""
    # Tiny steps are faster than the kill: the save in question has to stay.
    keep = 1000 if context.machine.rehearse else 1
    return ["optimizer.warmup_steps=0", "data.num_workers=1", "data.global_batch=1", "data.micro_batch=1",
            f"checkpoint.keep={keep}", "trainer.max_steps=1000", f"checkpoint.every_n_steps={saved}"]  # fmt: skip


def train(
    context: Context,
    name: str,
    run: Path,
    gpus: Sequence[int],
    *overrides: str,
    experiment: str = FULL,
    layers: int | None = None,
) -> Training:
    """Post-training of the 7B, or of a tiny network."""
    rehearsal = [f"experiment={TINY}", "model.preset=tiny-video2world", "trainer.precision=bf16",
                 "data.text_length=32"]  # fmt: skip
    config = network(context, layers)
    fields = ["num_layers"] if not context.machine.rehearse else ["num_layers", "text_width", "max_frames"]
    sizes = ", ".join(f"{key}: {getattr(config, key)}" for key in fields)
    first = rehearsal if context.machine.rehearse else [f"experiment={experiment}"]
    settings = [
        *first, f"model.overrides={{{sizes}}}", f"model.init_from={base(context, layers)}",
        f"data.path={shards(context)}", "data.tokenizer=check", *common_settings(context, SAVED), *overrides,
    ]  # fmt: skip
    return Training(context, name, run, gpus, settings)


def post_training(context: Context, gpus: Sequence[int]) -> None:
    plan, run = context.machine.plan, context.work / "run"
    average = context.machine.rehearse or shutil.disk_usage(context.work).free > 25 * count(network(context))
    extra = [f"ema.enabled={str(average).lower()}"]

    training = train(context, "train", run, gpus, *plan.first, *extra, FIXED_ORDER)
    training.wait_for_step(SAVED)
    to_save = time.time() - training.started
    before = training.peak_host = host_bytes(training.process.pid)
    training.wait(lambda: bool(training.said("saved ")), "the save")
    grown = training.peak_host - before
    training.wait_for_step(LAST)
    kill(training.process)
    metrics, saved = training.steps(), training.said("saved ").split(": ", 1)[-1]
    uninterrupted = {step: record["loss"] for step, record in metrics.items()}
    memory, seconds = training.memory(), {step: record["seconds"] for step, record in metrics.items()}
    losses = " ".join(f"{loss:.4f}" for loss in uninterrupted.values())
    name = f"train, {plan.layers} layers, {len(gpus)} processes"
    context.row(name, to_save, memory, f"{seconds[SAVED]:.2f} s a step, losses {losses}", True)
    slower = max(seconds[step] for step in range(SAVED + 1, LAST + 1)) / seconds[SAVED]
    context.row(
        "save and export", time.time() - training.started - to_save, NAN,
        f"{saved}; host memory grew by {grown / 1e9:.1f} GB; later steps take {slower:.2f} times as long",
        (slower < 1.1 and grown < exported_bytes(run)) or context.machine.rehearse,
    )  # fmt: skip
    check_export(context, run, "ema" if average else "reg")

    resumed = resume(partial(train, context, "resume", run, gpus, *plan.first, *extra, FIXED_ORDER), run)
    difference = relative(resumed.losses(), uninterrupted)
    value = f"{resumed.said('resumed ').split(': ')[-1]}; steps {SAVED + 1} to {LAST}: losses differ by "
    value += f"{difference:.1e} from the run that was not interrupted"
    context.row("kill -9 and resume", resumed.seconds, memory, value, difference == 0)

    options = plan.second or plan.first
    elsewhere = resume(partial(train, context, "elsewhere", run, gpus, *options, *extra), run)
    difference = relative(elsewhere.losses(), uninterrupted)
    name = " ".join(option.removeprefix("parallel.") for option in options) if plan.second else "the fastest kernels"
    value = f"{elsewhere.steps()[LAST]['seconds']:.2f} s a step; losses differ by {difference:.1e}"
    context.row(f"resume with {name}", elsewhere.seconds, elsewhere.memory(), value, difference < 2e-3)


def exported_bytes(run: Path) -> int:
    return sum(file.stat().st_size for file in (run / "checkpoints").glob("*_model.pt"))


def check_export(context: Context, run: Path, kind: str) -> None:
    """Two tensors of the exported regular weights equal the fp32 main parameters, rounded."""
    start, folder = time.time(), run / "checkpoints"
    equal = is_rounded(run, SAVED, weights_file(folder, SAVED, "reg"))
    size = weights_file(folder, SAVED, kind).stat().st_size / 1e9  # type: ignore[arg-type]
    value = f"regular weights are the main parameters rounded to bf16: {equal}; {kind} file {size:.1f} GB"
    context.row("exported files", time.time() - start, NAN, value, equal)


def is_rounded(run: Path, step: int, file: Path) -> bool:
    """Whether two tensors of a file's regular weights are the fp32 main parameters of a save, rounded to bf16."""
    save = DistributedCheckpoint(run / "checkpoints" / iteration_name(step))
    exported = torch.load(file, mmap=True, weights_only=True)
    pairs = {"net.x_embedder.proj.1.weight": "patch_embedding.weight", "net.final_layer.linear.weight":
             "final_layer.linear.weight"}  # fmt: skip
    return all(
        torch.equal(exported[theirs], save[f"optimizer.state.param.module.net.{ours}"].bfloat16())
        for theirs, ours in pairs.items()
    )


def resume(start: Callable[..., Training], run: Path, saved: int = SAVED, last: int = LAST) -> Training:
    """Go on from the save after step ``saved``, to step ``last``; ``start`` takes more settings."""
    (run / "metrics.jsonl").unlink()
    # Tiny steps can be faster than the kill: later saves do not count.
    write_latest(run / "checkpoints", saved)
    training = start("checkpoint.every_n_steps=1000")
    training.wait_for_step(last)
    kill(training.process)
    if min(training.steps()) != saved + 1:
        raise Failure(f"{training.name}: began with step {min(training.steps())}, expected {saved + 1}")
    training.record = training.steps()
    return training


def relative(found: Mapping[int, float], expected: Mapping[int, float], saved: int = SAVED, last: int = LAST) -> float:
    """The largest relative difference over the steps after the save."""
    return max(abs(found[step] - expected[step]) / abs(expected[step]) for step in range(saved + 1, last + 1))
