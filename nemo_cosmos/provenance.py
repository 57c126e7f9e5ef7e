"""What a run was started with: command, versions, source revision and machine, without secrets."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nemo_cosmos.secrets import HIDDEN, is_secret_name, redact
from nemo_cosmos.version import __version__

PACKAGES = ("torch", "nemo_toolkit", "megatron-core", "lightning", "transformer_engine", "transformers", "diffusers")
GIT_SECONDS = 10
"""A file system on which git takes longer than this is not waited for."""


def describe_start() -> dict[str, Any]:
    """When, how, with which versions, from which sources and on which machine this process was started.

    Returns:
        Plain values for JSON: `time` (UTC), `command`, `folder`, `versions` by package, `git` (of the sources of this
        package, None where they are no checkout), `host`, `device`, `processes`.
    """
    import torch

    on_gpu = torch.cuda.is_available()
    return {
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "command": shown_command(getattr(sys, "orig_argv", sys.argv)),
        "folder": redact(os.getcwd()),
        "versions": versions(),
        "git": source_revision(),
        "host": platform.node(),
        "device": torch.cuda.get_device_name() if on_gpu else f"CPU, {os.cpu_count()} cores",
        "processes": int(os.environ.get("WORLD_SIZE", "1")),
    }


def versions() -> dict[str, str | None]:
    """Of this package, Python, what it stands on, and CUDA and cuDNN as torch was built for; None: not installed."""
    import torch

    found: dict[str, str | None] = {"nemo_cosmos": __version__, "python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = None
    cudnn = torch.backends.cudnn.version() if torch.version.cuda else None
    return {**found, "cuda": torch.version.cuda, "cudnn": None if cudnn is None else str(cudnn)}


def shown_command(words: Sequence[str]) -> str:
    """A command line as a shell takes it, with ``***`` for secrets: known tokens, and values of secret names."""
    shown, hide_next = [], False
    for word in words:
        name, equals, _ = word.partition("=")
        if hide_next:
            word = HIDDEN
        elif equals and is_secret_name(name.lstrip("-+")):
            word = f"{name}={HIDDEN}"
        hide_next = not equals and word.startswith("--") and is_secret_name(word.lstrip("-"))
        shown.append(redact(word))
    return shlex.join(shown)


def source_revision(package: Path = Path(__file__).parent) -> dict[str, Any] | None:
    """The commit that this package's files come from, and whether they were changed since; None where unknown.

    Either it runs from a git checkout, or pip installed it from one and noted the commit.
    """
    checkout = package.parent
    if (checkout / ".git").exists():
        commit = _git(checkout, "rev-parse", "HEAD")
        changes = _git(checkout, "status", "--porcelain", "--untracked-files=no")
        return None if commit is None else {"commit": commit, "changed": None if changes is None else bool(changes)}
    try:
        noted = importlib.metadata.distribution("nemo_cosmos").read_text("direct_url.json")
        commit = json.loads(noted or "{}").get("vcs_info", {}).get("commit_id")
    except (importlib.metadata.PackageNotFoundError, ValueError):
        return None
    return {"commit": commit, "changed": False} if commit else None


def _git(folder: Path, *words: str) -> str | None:
    """What git says, None where there is no git, or it refuses."""
    try:
        result = subprocess.run(
            ["git", "-c", "core.fsmonitor=false", "-C", str(folder), *words],
            capture_output=True, text=True, errors="replace", timeout=GIT_SECONDS, check=False,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return None
    return result.stdout.strip() if result.returncode == 0 else None
