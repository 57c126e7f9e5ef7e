"""The verb `doctor`: does this machine train?"""

from __future__ import annotations

import contextlib
import importlib.metadata
import io
import json
import math
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Annotated

import typer

from nemo_cosmos import tiny
from nemo_cosmos.doctor.finding import Finding
from nemo_cosmos.errors import InputError
from nemo_cosmos.tiny import TINY

PACKAGES = ("torch", "nemo_toolkit", "megatron-core", "lightning", "transformers", "diffusers", "av")
ONLY_FOR_VIDEO = ("diffusers", "av")
"""Those of them that a machine may lack on which shards are trained on and nothing else."""
STEP_SECONDS = 300
"""A tiny run that takes longer than this hangs."""
TEXT_WIDTH = 16
"""Of the network that is trained from noise, where the package has no weights."""
NETWORK = (
    f"{{num_layers: 2, hidden_size: 64, num_attention_heads: 4, text_width: {TEXT_WIDTH}, adaln_lora_dim: 8, "
    "max_frames: 8, max_height: 16, max_width: 16}"
)
CLIP_SIZE = (48, 32)
"""(width, height) of the generated clip."""

Check = Callable[[], Iterable[Finding]]


def doctor(
    overrides: Annotated[
        list[str] | None,
        typer.Argument(metavar="[KEY=VALUE]...", help="experiment=NAME, and any setting that differs."),
    ] = None,
) -> None:
    """Check this machine, and an experiment on it; each line says what to do.

    Versions, GPUs and driver, memory, disks and the Hugging Face account; forward and backward of the network; sums
    over processes with gloo, and with NCCL over each pair of GPUs; a real training run of a tiny network with a save
    and a resume, through NeMo, Megatron's DDP and the optimizer, in bf16 on a GPU and in fp32 on the CPU, on made-up
    latents in a temporary folder, which starts from nemo-cosmos-tiny; and a clip that nemo-cosmos-tiny generates.
    With experiment=NAME also its settings, layout, memory, dataset, weights and output folder, on the GPUs of this
    machine.

    Ends with exit status 1 when something would keep a training run from starting.

    [bold]Example:[/bold] nemo-cosmos doctor experiment=video2world_7b_example_hdvila parallel.context=4
    """
    from rich.console import Console
    from rich.markup import escape

    console = Console(highlight=False)
    colours = {"ok": "green", "note": "yellow", "fail": "red"}
    problems = 0
    for check in _checks(overrides or []):
        for finding in check():
            colour = colours[finding.verdict]
            console.print(
                f"[{colour}]{finding.verdict:>7}[/{colour}]  {finding.subject}: {escape(finding.text)}", soft_wrap=True
            )
            problems += finding.verdict == "fail"
    if problems:
        console.print(f"[red]not ready to train, problems found: {problems}[/red]")
        raise typer.Exit(1)
    console.print("[green]this machine trains[/green]" + (", and the experiment can start" if overrides else ""))


def _checks(overrides: list[str]) -> list[Check]:
    """What is looked at, quick things first.

    Raises:
        InputError: the settings are wrong.
    """
    from nemo_cosmos.doctor.compute import check_network
    from nemo_cosmos.doctor.experiment import check_experiment, resolve
    from nemo_cosmos.doctor.machine import (
        check_devices,
        check_disk,
        check_hugging_face,
        check_shared_memory,
        check_transformer_engine,
    )

    machine: list[Check] = [
        _python, _packages, check_devices, check_transformer_engine, check_shared_memory, check_disk,
        check_hugging_face,
    ]  # fmt: skip
    work: list[Check] = [check_network, _sums, _training_run, _generation]
    if not overrides:
        return machine + work
    settings = resolve(overrides)
    return [*machine, lambda: check_experiment(settings), *work]


def _sums() -> Iterator[Finding]:
    import torch

    from nemo_cosmos.doctor.all_reduce import check_all_reduce

    advice = "look at the firewall and at GLOO_SOCKET_IFNAME, which names a network interface"
    yield from check_all_reduce("gloo", 2, advice)
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if gpus > 1:
        advice = "set NCCL_DEBUG=INFO and look at `nvidia-smi topo -m`; a container needs --ipc=host"
        yield from check_all_reduce("nccl", gpus, advice)


def _python() -> list[Finding]:
    supported = (3, 10) <= sys.version_info[:2] <= (3, 12)
    text = f"{platform.python_version()} at {sys.executable}"
    return [Finding("ok" if supported else "fail", "Python", text + ("" if supported else "; 3.10 to 3.12 needed"))]


def _packages() -> list[Finding]:
    """The package versions, and whether each is the one that this package asks for."""
    from packaging.requirements import Requirement

    wanted = {}
    try:
        for line in importlib.metadata.requires("nemo_cosmos") or []:
            requirement = Requirement(line)
            wanted[requirement.name.replace("_", "-").lower()] = requirement.specifier
    except importlib.metadata.PackageNotFoundError:
        return [Finding("note", "packages", "nemo_cosmos runs from a source folder; its requirements are not checked")]
    findings = []
    for name in PACKAGES:
        specifier = wanted.get(name.replace("_", "-"))
        try:
            version = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            if name in ONLY_FOR_VIDEO:
                text = f"not installed; training from shards does without, the other commands need pip install {name}"
                findings.append(Finding("note", name, text))
            else:
                findings.append(Finding("fail", name, "not installed; run pip install nemo_cosmos"))
            continue
        if specifier is not None and not specifier.contains(version, prereleases=True):
            advice = f'pip install "{name}{specifier}"'
            findings.append(Finding("fail", name, f"{version} installed, {specifier} needed: {advice}"))
        else:
            findings.append(Finding("ok", name, version))
    return findings


def _training_run() -> Iterator[Finding]:
    """Two steps and a save, then a process that loads the save and takes a third step."""
    import torch

    on_gpu = torch.cuda.is_available()
    source = f"from {TINY}" if tiny.FOLDER.is_dir() else "from noise"
    where = f"in bf16 on {torch.cuda.get_device_name()}" if on_gpu else "in fp32 on the CPU"
    with tempfile.TemporaryDirectory(prefix="nemo-cosmos-doctor-") as name:
        folder = Path(name)
        try:
            _write_latents(folder / "shards")
            seconds = _train(folder, steps=2, precision="bf16" if on_gpu else "fp32")
            losses = _losses(folder, 2)
            path = "through NeMo, Megatron's DDP and the optimizer"
            yield Finding(
                "ok", "training", f"2 steps {source} {path} {where}, loss {losses[-1]:.3f}, {seconds:.1f} s with start"
            )
            saved = folder / "run" / "checkpoints"
            written = sum(file.stat().st_size for file in saved.rglob("*") if file.is_file())
            yield Finding("ok", "save", f"checkpoint and exported weights of step 2, {written / 2**20:.1f} MiB")
            seconds = _train(folder, steps=3, precision="bf16" if on_gpu else "fp32")
            losses = _losses(folder, 3)
            yield Finding("ok", "load", f"resumed at step 2 and took step 3, loss {losses[-1]:.3f}, {seconds:.1f} s")
        except (InputError, OSError) as error:
            yield Finding("fail", "training run", str(error))


def _generation() -> Iterator[Finding]:
    """A clip of a few frames by the packaged network, tokenizer and text encoder."""
    if not tiny.FOLDER.is_dir():
        yield Finding("note", "generates", f"not tried: this installation is without {TINY}")
        return
    from PIL import Image

    from nemo_cosmos.inference.pretrained import Pipeline

    start = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="nemo-cosmos-doctor-") as name:
        picture = Path(name) / "first.png"
        Image.new("RGB", CLIP_SIZE, (90, 120, 160)).save(picture)
        width, height = CLIP_SIZE
        said = io.StringIO()
        try:
            with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
                pipe = Pipeline.from_pretrained(TINY)
                clip = pipe("A room.", image=picture, height=height, width=width, num_frames=5, num_steps=2)
        except (InputError, OSError, RuntimeError) as error:
            yield Finding("fail", "generates", str(error))
            return
    frames, height, width = clip.shape[:3]
    flat = "" if clip.std() > 0 else ", all of one colour"
    text = f"{frames} frames of {height} x {width} pixels by {TINY}{flat}, {time.perf_counter() - start:.1f} s"
    yield Finding("fail" if flat else "ok", "generates", text)


def _write_latents(folder: Path) -> None:
    import torch

    from nemo_cosmos.data.sample import LatentSample, TokenizerIdentity
    from nemo_cosmos.data.shards import ShardWriter
    from nemo_cosmos.demo.weights import PRESET
    from nemo_cosmos.models.dit import DiTConfig

    generator = torch.Generator().manual_seed(0)
    width = DiTConfig.preset(PRESET).text_width if tiny.FOLDER.is_dir() else TEXT_WIDTH
    identity = TokenizerIdentity("doctor", "0" * 64, 8, 8, 16)
    with ShardWriter(folder, tokenizer=identity, text_encoder="none") as writer:
        for i in range(2):
            writer.write(
                LatentSample(
                    key=f"noise-{i}",
                    latent=torch.randn(16, 2, 8, 8, generator=generator),
                    text=torch.randn(4, width, generator=generator),
                    caption="noise",
                    fps=24.0,
                    num_frames=9,
                    image_size=(64, 64, 64, 64),
                )
            )


def _settings(folder: Path, *, steps: int, precision: str) -> list[str]:
    """Of the training run."""
    network = ["model.preset=tiny-video2world", "model.init_from=null", f"model.overrides={NETWORK}"]
    if tiny.FOLDER.is_dir():
        network = [f"model.init_from={tiny.located(TINY, 'network') / 'model.pt'}"]
    return [
        "experiment=demo_video2world", *network, f"data.path={folder / 'shards'}", "data.tokenizer=null",
        "data.num_workers=0", "data.text_length=8", "data.micro_batch=1", "data.global_batch=2",
        f"trainer.precision={precision}", f"trainer.max_steps={steps}",
        "checkpoint.every_n_steps=1000", f"output_dir={folder / 'run'}",
    ]  # fmt: skip


def _train(folder: Path, *, steps: int, precision: str) -> float:
    """Seconds of a process of its own; InputError with the end of what it said when it fails."""
    overrides = _settings(folder, steps=steps, precision=precision)
    # A launcher that started this process has no part in that one.
    launcher = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
    environment = {name: value for name, value in os.environ.items() if name not in launcher}
    start = time.perf_counter()
    try:
        result = subprocess.run(
            [sys.executable, "-m", "nemo_cosmos", "train", *overrides],
            env=environment,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=STEP_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise InputError(f"no end after {STEP_SECONDS} s; on a GPU, NCCL or the driver may hang") from error
    if result.returncode:
        said = [line for line in (result.stdout + result.stderr).splitlines() if line.strip()]
        raise InputError(f"{' '.join(said[-1:]) or 'no message'} (exit status {result.returncode})")
    return time.perf_counter() - start


def _losses(folder: Path, steps: int) -> list[float]:
    lines = (folder / "run" / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    records = [json.loads(line) for line in lines]
    losses = [record["loss"] for record in records]
    if [record["step"] for record in records] != list(range(1, steps + 1)):
        raise InputError(f"expected steps 1 to {steps}, found {[record['step'] for record in records]}")
    if not all(math.isfinite(loss) for loss in losses):
        raise InputError(f"losses are not finite: {losses}")
    return losses
