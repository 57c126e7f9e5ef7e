"""The verb `doctor`: does this machine train?"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import shutil
import sys
import time
from dataclasses import dataclass
from typing import Literal

import typer

Verdict = Literal["ok", "note", "problem"]

PACKAGES = ("torch", "nemo_toolkit", "megatron-core", "nemo_run", "transformers", "diffusers", "av", "webdataset")
OUTPUT_BYTES_WANTED = 20 * 2**30
"""Free space below which a first run is likely to stop: the environment and the demo take a few GiB."""


@dataclass(frozen=True)
class Finding:
    """One line of the report."""

    verdict: Verdict
    subject: str
    text: str


def doctor() -> None:
    """Check this machine: versions, GPUs, disk, and one real training step of a tiny network.

    Ends with exit status 1 when something would keep a training run from starting.

    [bold]Example:[/bold] nemo-cosmos doctor
    """
    from rich.console import Console
    from rich.markup import escape

    console = Console(highlight=False)
    colours = {"ok": "green", "note": "yellow", "problem": "red"}
    problems = 0
    for check in (_python, _packages, _devices, _transformer_engine, _disk, _training_step):
        for finding in check():
            colour = colours[finding.verdict]
            console.print(
                f"[{colour}]{finding.verdict:>7}[/{colour}]  {finding.subject}: {escape(finding.text)}", soft_wrap=True
            )
            problems += finding.verdict == "problem"
    if problems:
        console.print(f"[red]not ready to train, problems found: {problems}[/red]")
        raise typer.Exit(1)
    console.print("[green]this machine trains[/green]")


def _python() -> list[Finding]:
    supported = (3, 10) <= sys.version_info[:2] <= (3, 12)
    text = f"{platform.python_version()} at {sys.executable}"
    return [Finding("ok" if supported else "problem", "Python", text + ("" if supported else "; 3.10 to 3.12 needed"))]


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
            findings.append(Finding("problem", name, "not installed; run pip install nemo_cosmos"))
            continue
        if specifier is not None and not specifier.contains(version, prereleases=True):
            findings.append(Finding("problem", name, f"{version} installed, {specifier} needed"))
        else:
            findings.append(Finding("ok", name, version))
    return findings


def _devices() -> list[Finding]:
    import torch

    if not torch.cuda.is_available():
        reason = "a GPU driver is present but" if shutil.which("nvidia-smi") else "no GPU;"
        return [
            Finding(
                "problem" if shutil.which("nvidia-smi") else "note",
                "GPU",
                f"{reason} torch {torch.__version__} runs on {os.cpu_count()} CPU cores with gloo",
            )
        ]
    findings = []
    for index in range(torch.cuda.device_count()):
        free, total = torch.cuda.mem_get_info(index)
        name = torch.cuda.get_device_name(index)
        findings.append(Finding("ok", f"GPU {index}", f"{name}, {free / 2**30:.0f} of {total / 2**30:.0f} GiB free"))
    return findings


def _transformer_engine() -> list[Finding]:
    import torch

    if not torch.cuda.is_available():
        return []
    if importlib.util.find_spec("transformer_engine") is None:
        text = "not installed; PyTorch's fused attention is used (pip install 'nemo_cosmos[gpu]' adds it)"
        return [Finding("note", "Transformer Engine", text)]
    try:
        import transformer_engine.pytorch  # noqa: F401
    except (ImportError, OSError, RuntimeError) as error:
        return [Finding("problem", "Transformer Engine", f"installed, but does not import: {error}")]
    return [Finding("ok", "Transformer Engine", importlib.metadata.version("transformer_engine"))]


def _disk() -> list[Finding]:
    root = os.environ.get("OUTPUT_ROOT", ".")
    while not os.path.exists(root):
        root = os.path.dirname(root) or "."
    free = shutil.disk_usage(root).free
    text = f"{free / 2**30:.0f} GiB free in {os.path.abspath(root)}"
    if not os.access(root, os.W_OK):
        return [Finding("problem", "output folder", f"{os.path.abspath(root)} is not writable")]
    return [Finding("ok" if free >= OUTPUT_BYTES_WANTED else "note", "disk", text)]


def _training_step() -> list[Finding]:
    """Forward and backward of a tiny Video2World network, on the GPU when there is one."""
    import torch

    from nemo_cosmos.models.dit import DiTConfig, build_dit

    device = "cuda" if torch.cuda.is_available() else "cpu"
    config = DiTConfig.preset("tiny-video2world")
    start = time.perf_counter()
    net = build_dit(config).to(device)
    latent = torch.randn(1, config.in_channels, 2, 8, 8, device=device)
    output = net(
        latent,
        torch.zeros(1, device=device),
        torch.randn(1, 8, config.text_width, device=device),
        fps=torch.full((1,), 24.0, device=device),
        padding_mask=torch.zeros(1, 1, 8, 8, device=device),
        condition_mask=torch.zeros(1, 1, 2, 8, 8, device=device),
    )
    output.square().mean().backward()
    finite = all(p.grad is not None and bool(p.grad.isfinite().all()) for p in net.parameters() if p.requires_grad)
    seconds = time.perf_counter() - start
    if not (finite and bool(output.isfinite().all())):
        return [Finding("problem", "training step", f"the tiny network gave no finite gradients on {device}")]
    return [Finding("ok", "training step", f"forward and backward of a tiny network on {device} in {seconds:.1f} s")]
