"""Goes the whole way on a GPU machine: prepare, train, kill, resume, export, generate; prints a table of it.

    python tools/gpu_check.py                        # 1, 2 or 4 GPUs of 80 or 141 GB; under 9 minutes
    python tools/gpu_check.py --only post_training   # one step; what it builds on is made first
    python tools/gpu_check.py --rehearse             # the same commands on a CPU, with tiny networks

Weights are random and all data is made on the spot, so nothing is downloaded. All weights are trained and, where they
fit (2 x 141 GB, 4 x 80 GB), all 28 layers of the 7B. Exit status 1 when a step fails.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from nemo_cosmos.checkpoint.distributed import DistributedCheckpoint
from nemo_cosmos.checkpoint.files import MODEL_CONFIG, iteration_name, save_tensors, weights_file
from nemo_cosmos.data.sample import LatentSample
from nemo_cosmos.data.shards import ShardWriter
from nemo_cosmos.models.dit import DiTConfig
from nemo_cosmos.models.dit.state_dict import original_shapes

GIB = 2**30
VISIBLE = (os.environ.get("CUDA_VISIBLE_DEVICES") or ",".join(map(str, range(16)))).split(",")
"""Numbers of the GPUs that may be used."""
NAN = float("nan")
SHARED = Path("/dev/shm/gpu_check_base")
TIMEOUT = 420.0
SAVED, LAST = 3, 5
"""A run saves after step 3 and is killed after step 5; resumed runs repeat steps 4 and 5."""
WHOLE = 28
"""Layers of the 7B."""
FULL, TINY = "video2world_7b_example_hdvila", "demo_video2world"


# ------------------------------------------------------------------------------------------------ machine and commands


@dataclass(frozen=True)
class Plan:
    """What a machine trains, and in which two layouts."""

    layers: int
    first: tuple[str, ...]
    second: tuple[str, ...] | None


def layout(tensor: int, context: int, recompute: str) -> tuple[str, ...]:
    """Every setting, so that nothing of the experiment's own layout is left."""
    sequence = str(tensor > 1).lower()
    sizes = (f"parallel.tensor={tensor}", f"parallel.sequence={sequence}", f"parallel.context={context}")
    return (*sizes, "parallel.pipeline=1", f"parallel.recompute={recompute}")


PLANS = {
    # (GPUs, whether they have 141 GB): 18 bytes a weight, and activations.
    (1, False): Plan(6, layout(1, 1, "full"), None),
    (1, True): Plan(14, layout(1, 1, "full"), None),
    (2, False): Plan(14, layout(2, 1, "full"), layout(1, 2, "full")),
    (2, True): Plan(28, layout(2, 1, "selective"), layout(1, 2, "full")),
    (4, False): Plan(28, layout(2, 2, "full"), layout(4, 1, "full")),
}


@dataclass(frozen=True)
class Machine:
    gpus: int
    bytes_each: int
    rehearse: bool
    layers: int | None = None

    @classmethod
    def find(cls, rehearse: bool, layers: int | None) -> Machine:
        if rehearse:
            return cls(2, 0, True)
        count = torch.cuda.device_count()
        if not count:
            raise SystemExit("error: no GPU here; --rehearse goes through the same commands on a CPU")
        gpus = max(n for n in (1, 2, 4) if n <= count)
        return cls(gpus, torch.cuda.get_device_properties(0).total_memory, False, layers)

    @property
    def plan(self) -> Plan:
        if self.rehearse:
            return Plan(2, layout(2, 1, "none"), layout(1, 2, "none"))
        large = self.bytes_each > 100 * GIB
        plan = PLANS[self.gpus, large and self.gpus < 4]
        return replace(plan, layers=self.layers or plan.layers)

    def __str__(self) -> str:
        name = "CPU" if self.rehearse else torch.cuda.get_device_name(0)
        return f"{self.gpus} x {name}, torch {torch.__version__}, Python {platform.python_version()}"


class GpuMonitor(threading.Thread):
    """Asks nvidia-smi five times a second: (time, GPU, busy percent, bytes in use)."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.samples: list[tuple[float, int, int, int]] = []

    def run(self) -> None:
        query = ["nvidia-smi", "--query-gpu=index,utilization.gpu,memory.used", "--format=csv,noheader,nounits"]
        with subprocess.Popen([*query, "-lms", "200"], stdout=subprocess.PIPE, text=True) as process:
            for line in process.stdout or ():
                index, busy, used = (int(value) for value in line.split(","))
                self.samples.append((time.time(), index, busy, used * 2**20))

    def since(self, start: float, gpus: Sequence[int]) -> tuple[float, float]:
        """(mean share busy from the first busy moment to the last, most GiB in use) of some GPUs since ``start``."""
        visible = [VISIBLE[gpu] for gpu in gpus]
        found = [(busy, used) for when, gpu, busy, used in self.samples if when >= start and str(gpu) in visible]
        busy = [index for index, (share, _) in enumerate(found) if share]
        if not busy:
            return NAN, NAN
        working = [share for share, _ in found[busy[0] : busy[-1] + 1]]
        return sum(working) / len(working) / 100, max(used for _, used in found) / GIB


def descendants(pid: int) -> Iterator[int]:
    """A process and all below it."""
    yield pid
    children = Path(f"/proc/{pid}/task/{pid}/children")
    if children.exists():
        for child in children.read_text().split():
            yield from descendants(int(child))


def kill(process: subprocess.Popen[bytes]) -> None:
    """SIGKILL to a whole tree, as when the power goes."""
    for pid in list(descendants(process.pid)):
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
    process.wait()


def host_bytes(pid: int) -> int:
    """Memory of a process tree, without mapped files."""
    total = 0
    for child in descendants(pid):
        try:
            lines = Path(f"/proc/{child}/status").read_text().splitlines()
        except OSError:
            continue
        total += sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon"))
    return total


class Failure(Exception):
    """A step did not do what it should."""


@dataclass
class Context:
    """Where everything lies, and how commands are started."""

    work: Path
    machine: Machine
    monitor: GpuMonitor
    rows: list[tuple[str, float, float, str, bool]] = field(default_factory=list)
    made: set[str] = field(default_factory=set)

    def start(self, name: str, command: Sequence[str], gpus: Sequence[int]) -> subprocess.Popen[bytes]:
        """A verb of ``nemo_cosmos`` on some GPUs; through torchrun where there are several. Output goes to a log."""
        torchrun = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={len(gpus)}"]
        launcher = [*(torchrun if len(gpus) > 1 else []), "-m"]
        environment = {**os.environ, "TERM": "dumb", "PYTHONUNBUFFERED": "1", "OMP_NUM_THREADS": "4"}
        if not self.machine.rehearse:
            environment["CUDA_VISIBLE_DEVICES"] = ",".join(VISIBLE[gpu] for gpu in gpus)
        line = [sys.executable, *launcher, "nemo_cosmos", *command]
        log = self.log(name)
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("wb") as file:
            file.write((" ".join(line) + "\n").encode())
            file.flush()
            return subprocess.Popen(line, stdout=file, stderr=subprocess.STDOUT, env=environment)

    def run(self, name: str, command: Sequence[str], gpus: Sequence[int] = (0,)) -> str:
        """Start, wait, and give the output; raises when it fails."""
        process = self.start(name, command, gpus)
        try:
            status = process.wait(TIMEOUT)
        except subprocess.TimeoutExpired:
            kill(process)
            raise Failure(f"{name}: still running after {TIMEOUT:.0f} s\n{self.end_of(name)}") from None
        if status:
            raise Failure(f"{name}: exit status {status}\n{self.end_of(name)}")
        return self.log(name).read_text(errors="replace")

    def log(self, name: str) -> Path:
        return self.work / "logs" / f"{name}.log"

    def end_of(self, name: str) -> str:
        return self.log(name).read_text(errors="replace")[-3000:]

    def row(self, step: str, seconds: float, gib: float, value: str, ok: bool) -> None:
        self.rows.append((step, seconds, gib, value, ok))
        print(f"{'ok  ' if ok else 'FAIL'} {step}: {value} ({seconds:.1f} s)", flush=True)

    @property
    def size(self) -> str:
        return "32x48" if self.machine.rehearse else "704x1280"

    @property
    def frames(self) -> int:
        return 9 if self.machine.rehearse else 121


# ------------------------------------------------------------------------------------------ what the steps build upon


def clips(context: Context) -> Path:
    folder = context.work / "clips"
    if not folder.exists():
        options = ["--clips", "4", "--held-out", "1", "--size", context.size, "--frames", str(context.frames)]
        context.run("sample_data", ["sample-data", str(folder), *options])
        for video in sorted((folder / "train" / "videos").glob("*.mp4")):
            for number in range(0 if context.machine.rehearse else 7):
                shutil.copy(video, video.with_stem(f"{video.stem}-{number}"))
                caption = folder / "train" / "metas" / f"{video.stem}.txt"
                shutil.copy(caption, caption.with_stem(f"{video.stem}-{number}"))
    return folder / "train"


def tokenizer(context: Context) -> Path:
    from nemo_cosmos.models.tokenizer import build_tokenizer
    from nemo_cosmos.models.tokenizer.pretrained import save_tokenizer

    folder = context.work / "tokenizer"
    if not folder.exists():
        torch.manual_seed(0)
        name, width = ("CV4x8x8-360p", {"channels": 8}) if context.machine.rehearse else ("CV8x8x8-720p", {})
        module = build_tokenizer(name, **width)
        statistics = torch.zeros(module.config.latent_channels, 64), torch.ones(module.config.latent_channels, 64)
        save_tokenizer(folder, module, name="check", mean=statistics[0], std=statistics[1])
    return folder


def text_encoder(context: Context) -> Path:
    from nemo_cosmos.models.text import save_tiny_text_encoder

    folder = context.work / "text_encoder"
    if not folder.exists():
        save_tiny_text_encoder(folder, width=network(context).text_width)
    return folder


def shards(context: Context) -> Path:
    """Those of the step ``prepare``, or random latents of the same shape."""
    from nemo_cosmos.models.tokenizer import load_tokenizer

    folder = context.work / "shards"
    if not (folder / "manifest.json").exists():
        frames, (height, width) = context.frames, (int(n) for n in context.size.split("x"))
        identity = load_tokenizer(tokenizer(context)).identity
        shape = (16, 1 + (frames - 1) // identity.temporal_compression, height // 8, width // 8)
        generator = torch.Generator().manual_seed(0)
        with ShardWriter(folder, tokenizer=identity, text_encoder="random", samples_per_shard=4) as writer:
            for number in range(4):
                text = torch.randn(20, network(context).text_width, generator=generator)
                latent, size = torch.randn(shape, generator=generator), (height, width, height, width)
                writer.write(LatentSample(f"clip-{number}", latent, text, "a clip", 24.0, frames, size))
    return folder


def network(context: Context, layers: int | None = None) -> DiTConfig:
    """The network with as many layers as are trained here, or with some other number."""
    if context.machine.rehearse:
        return DiTConfig.preset("tiny-video2world", num_layers=2, text_width=32, max_frames=16)
    return DiTConfig.preset("predict1-7b-video2world", num_layers=layers or context.machine.plan.layers)


class RandomWeights(Mapping[str, Tensor]):
    """A released file's tensors in bf16, drawn one at a time on the GPU."""

    def __init__(self, config: DiTConfig) -> None:
        shapes = {f"net.{name}": shape for name, shape in original_shapes(config).items()}
        self.shapes = {**shapes, "logvar.0.freqs": (128,), "logvar.0.phases": (128,), "logvar.1.weight": (1, 128)}
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        self.generator = torch.Generator(self.device).manual_seed(0)

    def __iter__(self) -> Iterator[str]:
        return iter(self.shapes)

    def __len__(self) -> int:
        return len(self.shapes)

    def shape_of(self, name: str) -> tuple[int, ...]:
        return self.shapes[name]

    def dtype_of(self, name: str) -> torch.dtype:
        return torch.bfloat16

    def __getitem__(self, name: str) -> Tensor:
        shape = self.shapes[name]
        if len(shape) == 1 and name.startswith("net."):
            return torch.ones(shape, dtype=torch.bfloat16)
        values = torch.randn(shape, generator=self.generator, device=self.device, dtype=torch.float32)
        return (values * shape[-1] ** -0.5).bfloat16().cpu()


def base(context: Context, layers: int | None = None) -> Path:
    """A file in the released layout; beside the saves where they fit together on the disk, else in shared memory."""
    config = network(context, layers)
    folder = context.work / f"base_{config.num_layers}"
    if not context.machine.rehearse and shutil.disk_usage(context.work).total < 24 * count(config):
        folder = SHARED / folder.name
    file = folder / "model.pt"
    if not file.exists():
        folder.mkdir(parents=True, exist_ok=True)
        start = time.perf_counter()
        save_tensors(file, RandomWeights(config))
        (folder / MODEL_CONFIG).write_text(json.dumps(config.to_dict()))
        seconds, size = time.perf_counter() - start, file.stat().st_size
        context.row(f"released-layout file, {config.num_layers} layers", seconds, NAN, f"{size / 1e9:.1f} GB", True)
    return file


def count(config: DiTConfig) -> int:
    """Weights of a network."""
    return sum(torch.Size(shape).numel() for shape in original_shapes(config).values())


# --------------------------------------------------------------------------------------------------------------- steps


def prepare(context: Context, gpus: Sequence[int]) -> None:
    source = clips(context)
    options = ["--frames", str(context.frames), "--size", context.size, "--text-encoder", str(text_encoder(context))]
    folder, start = context.work / "shards", time.time()
    output = context.run(
        "prepare", ["prepare", str(source), str(folder), "--tokenizer", str(tokenizer(context)), *options], gpus[:1]
    )
    busy, gib = context.monitor.since(start, gpus[:1])
    line = next(line for line in output.splitlines() if line.startswith("prepared"))
    context.run("validate", ["validate", str(folder)], gpus[:1])
    context.row("prepare", time.time() - start, gib, f"{line}; GPU busy {busy:.0%} of the time", True)


class Training:
    """One training command, watched through its metrics."""

    def __init__(
        self, context: Context, name: str, run: Path, gpus: Sequence[int], *overrides: str, layers: int | None = None
    ) -> None:
        self.context, self.name, self.run = context, name, run
        rehearsal = [f"experiment={TINY}", "model.preset=tiny-video2world", "trainer.precision=bf16",
                     "data.tokenizer=null", "data.text_length=32", "parallel=single"]  # fmt: skip
        config = network(context, layers)
        fields = ["num_layers"] if not context.machine.rehearse else ["num_layers", "text_width", "max_frames"]
        sizes = ", ".join(f"{key}: {getattr(config, key)}" for key in fields)
        common = [
            f"model.overrides={{{sizes}}}", f"model.init_from={base(context, layers)}", f"data.path={shards(context)}",
            f"output_dir={run}", "optimizer.warmup_steps=0", "data.tokenizer=check",
            "data.num_workers=1", "data.global_batch=1",
            "data.micro_batch=1", "checkpoint.keep=1", "trainer.max_steps=1000", f"checkpoint.every_n_steps={SAVED}",
        ]  # fmt: skip
        first = rehearsal if context.machine.rehearse else [f"experiment={FULL}"]
        self.record: dict[int, dict[str, float]] | None = None
        """Its metrics, kept when their file is made anew."""
        self.seconds = 0.0
        self.started = time.time()
        self.process = context.start(name, ["train", *first, *common, *overrides], gpus)
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


def post_training(context: Context, gpus: Sequence[int]) -> None:
    plan, run = context.machine.plan, context.work / "run"
    average = context.machine.rehearse or shutil.disk_usage(context.work).free > 25 * count(network(context))
    extra = [f"ema.enabled={str(average).lower()}"]

    training = Training(context, "train", run, gpus, *plan.first, *extra)
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

    resumed = [resume(context, f"resume_{number}", run, gpus, [*plan.first, *extra]) for number in (1, 2)]
    first, second = (training.losses() for training in resumed)
    difference, spread = relative(first, uninterrupted), relative(second, first)
    kernels = "bit for bit" if spread == 0 else f"{spread:.1e} between two resumed runs"
    value = f"{resumed[0].said('resumed ').split(': ')[-1]}; steps {SAVED + 1} to {LAST}: "
    value += f"losses differ by {difference:.1e} from the run that was not interrupted, {kernels}"
    context.row("kill -9 and resume", resumed[0].seconds, memory, value, difference <= 2 * spread)
    if plan.second is not None:
        elsewhere = resume(context, "elsewhere", run, gpus, [*plan.second, *extra])
        difference = relative(elsewhere.losses(), uninterrupted)
        options = " ".join(option.removeprefix("parallel.") for option in plan.second)
        value = f"losses differ by {difference:.1e}"
        context.row(f"resume with {options}", elsewhere.seconds, elsewhere.memory(), value, difference < 2e-3)


def exported_bytes(run: Path) -> int:
    return sum(file.stat().st_size for file in (run / "checkpoints").glob("*_model.pt"))


def check_export(context: Context, run: Path, kind: str) -> None:
    """Two tensors of the exported regular weights equal the fp32 main parameters, rounded."""
    start, folder = time.time(), run / "checkpoints"
    save = DistributedCheckpoint(folder / iteration_name(SAVED))
    exported = torch.load(weights_file(folder, SAVED, "reg"), mmap=True, weights_only=True)
    pairs = {"net.x_embedder.proj.1.weight": "patch_embedding.weight", "net.final_layer.linear.weight":
             "final_layer.linear.weight"}  # fmt: skip
    equal = all(
        torch.equal(exported[theirs], save[f"optimizer.state.param.module.net.{ours}"].bfloat16())
        for theirs, ours in pairs.items()
    )
    size = weights_file(folder, SAVED, kind).stat().st_size / 1e9  # type: ignore[arg-type]
    value = f"regular weights are the main parameters rounded to bf16: {equal}; {kind} file {size:.1f} GB"
    context.row("exported files", time.time() - start, NAN, value, equal)


def resume(context: Context, name: str, run: Path, gpus: Sequence[int], overrides: Sequence[str]) -> Training:
    """Go on from the save, to the last step."""
    (run / "metrics.jsonl").unlink()
    training = Training(context, name, run, gpus, *overrides, "checkpoint.every_n_steps=1000")
    training.wait_for_step(LAST)
    kill(training.process)
    if min(training.steps()) != SAVED + 1:
        raise Failure(f"{name}: began with step {min(training.steps())}, expected {SAVED + 1}")
    training.record = training.steps()
    return training


def relative(found: Mapping[int, float], expected: Mapping[int, float]) -> float:
    """The largest relative difference over the steps after the save."""
    steps = range(SAVED + 1, LAST + 1)
    return max(abs(found[step] - expected[step]) / abs(expected[step]) for step in steps)


def adapters(context: Context, gpus: Sequence[int]) -> None:
    """LoRA beside the whole frozen network, saved, merged, generated from."""
    run, start = context.work / "adapters", time.time()
    weights = base(context, WHOLE)
    training = Training(
        context, "adapters", run, gpus[:1], "lora=all_linear", "optimizer.lr=0.01", "parallel.recompute=full",
        "trainer.max_steps=2", "checkpoint.every_n_steps=2", layers=WHOLE,
    )  # fmt: skip
    training.wait(lambda: training.process.poll() is not None and bool(training.said("saved ")), "its end")
    shape = ("--height", "32", "--width", "48") if context.machine.rehearse else ("--height", "256", "--width", "256")
    models, options = {"base": weights, "merged": run}, (*shape, "--num-frames", "9", "--chunk-frames", "9")
    with ThreadPoolExecutor(2 if len(gpus) > 1 else 1) as pool:
        calls = [
            pool.submit(generate, context, f"adapters_{name}", model, [gpu], *options)
            for (name, model), gpu in zip(models.items(), (gpus[0], gpus[-1]), strict=True)
        ]
        frames = [call.result()[0] for call in calls]
    difference = (frames[0] - frames[1]).abs().mean().item()
    value = f"{training.steps()[2]['seconds']:.1f} s a step; {training.said('saved ').split(': ', 1)[-1]}; "
    value += f"generated with merged adapters differs by {difference:.1f} levels"
    context.row("LoRA, 28 layers, one GPU", time.time() - start, training.memory(), value, difference > 0.1)


def generate(
    context: Context, name: str, model: Path, gpus: Sequence[int], *options: str, steps: int = 2
) -> tuple[Tensor, dict[str, float]]:
    """(frames, what the command measured) of the second of two videos: the first compiles."""
    from nemo_cosmos.data.video import read_frames

    output = context.work / "videos" / name
    batch = context.work / f"{name}.jsonl"
    batch.write_text("".join(json.dumps({"name": n, "prompt": "a red disc"}) + "\n" for n in ("first", "second")))
    arguments = ["--model", str(model), "--text-encoder", str(text_encoder(context)), "--no-guardrail", "--crf", "0"]
    arguments += ["--tokenizer", str(tokenizer(context)), "--output", str(output), "--batch", str(batch)]
    context.run(f"generate_{name}", ["generate", *arguments, "--num-steps", str(steps), *options], gpus)
    measured = json.loads((output / "second.json").read_text())["measured"]
    return read_frames(output / "second.mp4").float(), measured


def generation(context: Context, gpus: Sequence[int]) -> None:
    """The exported average at full size; alone and, where there are two GPUs, on both."""
    files = sorted((context.work / "run" / "checkpoints").glob("*_ema_model.pt"))
    files += sorted((context.work / "run" / "checkpoints").glob("*_reg_model.pt"))
    model = files[0] if files else base(context, WHOLE)
    shape = ["--height", "32", "--width", "48", "--num-frames", "9"] if context.machine.rehearse else []
    jobs = {"one": gpus[:1]} if len(gpus) == 1 else {"one": gpus[:1], "two": gpus[-2:]}
    for made_once in (text_encoder, tokenizer):
        made_once(context)
    start, steps = time.time(), 2
    # With three GPUs or more both run at once.
    with ThreadPoolExecutor(2 if len(gpus) > 2 else 1) as pool:
        calls = {
            name: pool.submit(generate, context, name, model, on, *shape, steps=steps) for name, on in jobs.items()
        }
        found = {name: call.result() for name, call in calls.items()}
    frames, measured = found["one"]
    value = f"{model.name}: {measured['seconds'] / steps:.2f} s a denoising step with its share of decoding, "
    gib = measured.get("peak_memory_bytes", NAN) / GIB
    value += f"{len(frames[0])} frames, spread {frames.std():.1f}"
    context.row("generate", time.time() - start, gib, value, bool(frames.std() > 1))
    if "two" in found:
        difference = (found["two"][0] - frames).abs().mean().item()
        value = f"{found['two'][1]['seconds'] / steps:.2f} s a step; differs by {difference:.3f} levels from one"
        context.row("generate, context 2", time.time() - start, NAN, value, difference < 1.0)


def tokenizer_training(context: Context, gpus: Sequence[int]) -> None:
    name = "CV4x8x8_360p" if context.machine.rehearse else "CV8x8x8_720p"
    run, start = context.work / "tokenizer_run", time.time()
    shape = ["data.num_frames=9", "data.crop=[32,32]"] if context.machine.rehearse else []
    settings = [
        f"experiment=Cosmos_Tokenize1_{name}_HDVILA", f"model.init_from={tokenizer(context)}", "data.val=null",
        f"data.train={clips(context)}/videos/*.mp4", f"output_dir={run}", "data.global_batch=1",
        "data.num_workers=1", "trainer.max_steps=1", "loss.perceptual.enabled=false", "checkpoint.statistics_clips=0",
    ]  # fmt: skip
    if context.machine.rehearse:
        settings += ["model.overrides={channels: 8}", "data.resolution=null"]
    context.run("tokenizer_train", ["tokenizer", "train", *settings, *shape], gpus[:1])
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    record = next(record for record in records if "loss" in record)
    target = context.work / "tokenizer_jit"
    context.run("tokenizer_export", ["tokenizer", "export", str(tokenizer(context)), str(target), "--format", "jit"])
    device = "cpu" if context.machine.rehearse else "cuda"
    video = torch.rand(1, 3, 9, 64, 64, device=device).bfloat16() * 2 - 1
    with torch.no_grad():
        halves = [torch.jit.load(target / f"{half}.jit", map_location=device) for half in ("encoder", "decoder")]
        encoder, decoder = (half.to(torch.bfloat16) for half in halves)
        decoded = decoder(encoder(video)[0])
    finite = bool(torch.isfinite(decoded).all()) and decoded.shape == video.shape
    memory = record.get("memory_bytes", NAN) / GIB
    value = f"loss {record['loss']:.4f}; exported JIT files decode what they encode in bf16: {finite}"
    context.row("tokenizer step and export", time.time() - start, memory, value, finite)


STEPS: dict[str, Callable[[Context, Sequence[int]], None]] = {
    "prepare": prepare,
    "tokenizer": tokenizer_training,
    "post_training": post_training,
    "adapters": adapters,
    "generation": generation,
}
ROUNDS = (("prepare", "tokenizer"), ("post_training",), ("adapters", "generation"))
"""Steps of one round need no others, and run at once where each can have GPUs of its own."""


def run_step(context: Context, name: str, gpus: Sequence[int]) -> None:
    start = time.time()
    try:
        STEPS[name](context, gpus)
    except Exception as error:  # the table shall name it, whatever it is
        if not isinstance(error, Failure):
            traceback.print_exc()
        print(error, flush=True)
        context.row(name, time.time() - start, NAN, str(error).splitlines()[0][:160], False)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = f"one of {', '.join(STEPS)}; may be repeated"
    parser.add_argument("--only", action="append", choices=STEPS, metavar="NAME", help=names)
    parser.add_argument("--layers", type=int, help="train fewer layers of the 7B than fit")
    parser.add_argument("--rehearse", action="store_true", help="on a CPU, with tiny networks")
    parser.add_argument("--work", type=Path, default=Path("outputs/gpu_check"), help="folder that is emptied first")
    parser.add_argument("--keep", action="store_true", help="leave the folder")
    arguments = parser.parse_args()
    machine = Machine.find(arguments.rehearse, arguments.layers)
    work = arguments.work.absolute()
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    monitor = GpuMonitor()
    if not machine.rehearse:
        monitor.start()
    context, start = Context(work, machine, monitor), time.time()
    print(f"{machine}; {time.strftime('%Y-%m-%d')}", flush=True)
    gpus = list(range(machine.gpus))
    for names in ROUNDS:
        wanted = [name for name in names if not arguments.only or name in arguments.only]
        if len(wanted) > 1 and len(gpus) > 1 and not machine.rehearse:
            split = [gpus[:1], gpus[1:]]
            for made_once in (clips, tokenizer, text_encoder):
                made_once(context)
            with ThreadPoolExecutor(2) as pool:
                list(pool.map(partial(run_step, context), wanted, split))
        else:
            for name in wanted:
                run_step(context, name, gpus)
    print_table(context, time.time() - start)
    if not arguments.keep:
        shutil.rmtree(work, ignore_errors=True)
        shutil.rmtree(SHARED, ignore_errors=True)
    raise SystemExit(0 if all(ok for *_, ok in context.rows) else 1)


def print_table(context: Context, seconds: float) -> None:
    print(f"\n{context.machine}; {time.strftime('%Y-%m-%d')}; {seconds:.0f} s in all\n")
    print("| step | seconds | GiB | what was found | ok |\n|---|---|---|---|---|")
    for step, took, gib, value, ok in context.rows:
        memory = "" if gib != gib else f"{gib:.1f}"
        print(f"| {step} | {took:.1f} | {memory} | {value} | {'yes' if ok else 'NO'} |")


if __name__ == "__main__":
    main()
