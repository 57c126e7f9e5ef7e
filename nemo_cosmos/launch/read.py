"""From the words of a command line to how a run is started, with every mistake said before anything is."""

from __future__ import annotations

import re
from collections.abc import Sequence

from nemo_cosmos.compose import load_config
from nemo_cosmos.errors import InputError
from nemo_cosmos.launch.config import EXECUTORS, DockerLaunch, DockerSettings, Launch, LocalLaunch, SlurmLaunch
from nemo_cosmos.launch.config import SlurmSettings as Slurm

OWN_KEYS = ("executor", "nodes", "gpus_per_node")
"""Everything else on the command line is a setting of the run."""


def read_launch(overrides: Sequence[str]) -> tuple[Launch, list[str]]:
    """How to start a run, and the settings of the run.

    Raises:
        InputError: an unknown executor or key, or a value that no such launch can have.
    """
    own = [word for word in overrides if re.split(r"[.=]", word.lstrip("+~"))[0] in OWN_KEYS]
    chosen = [word.partition("=")[2] for word in own if word.partition("=")[0] == "executor"]
    name = chosen[-1] if chosen else "local"
    if name not in EXECUTORS:
        raise InputError(
            f"executor={name[:40]}: expected {', '.join(EXECUTORS)}; to NeMo-Run's other executors give a recipe of "
            "nemo_cosmos.recipes (docs/launching.md)"
        )
    launch = load_config(EXECUTORS[name], own, root="launch")
    if not isinstance(launch, SlurmLaunch) and launch.nodes > 1:
        raise InputError(
            f"nodes={launch.nodes}: executor={name} starts processes on this machine alone; use executor=slurm, or "
            "torchrun on each node (docs/launching.md)"
        )
    if isinstance(launch, LocalLaunch | DockerLaunch | SlurmLaunch):
        _check_environment(launch.executor.env)
    if isinstance(launch, DockerLaunch):
        _check_docker(launch.executor, launch.gpus_per_node)
    if isinstance(launch, SlurmLaunch):
        _check_slurm(launch.executor)
    return launch, [word for word in overrides if word not in own]


def _check_environment(env: dict[str, str]) -> None:
    for name, value in env.items():
        # NeMo-Run writes names in capitals.
        _expect("env", name, "[A-Z_][A-Z0-9_]*", "a name of capital letters, digits and _, for example NCCL_DEBUG")
        _expect(f"env.{name}", value, r"[^\n\r]*", "one line of text")


def _check_docker(settings: DockerSettings, gpus_per_node: int) -> None:
    _expect("image", settings.image, r"\S+", "the name of an image")
    for volume in settings.volumes:
        _expect("volumes", volume, r"[^:\n]+:/[^:\n]*(:(ro|rw|z|Z)(,\w+)*)?", "HOST:/CONTAINER or HOST:/CONTAINER:ro")
    for limit in settings.ulimits:
        _expect("ulimits", limit, r"[a-z]+=-?\d+(:-?\d+)?", "NAME=SOFT or NAME=SOFT:HARD, for example memlock=-1")
    _expect("gpus", settings.gpus, r"auto|all|none|device=[\w,:-]+", "auto, all, none or device=LIST")
    devices = settings.gpus.removeprefix("device=").split(",")
    if settings.gpus.startswith("device=") and len(devices) != gpus_per_node:
        raise InputError(f"executor.gpus={settings.gpus} names {len(devices)} GPUs, gpus_per_node={gpus_per_node}")
    _expect("user", settings.user, r"\w[\w.-]*(:\w[\w.-]*)?", "UID or UID:GID")


def _check_slurm(settings: Slurm) -> None:
    word = r"[^\s;|&`$<>]+"
    for key in ("account", "partition", "qos", "constraint", "gres", "mem", "mail_user", "mail_type"):
        _expect(
            key, getattr(settings, key), word if key != "constraint" else r"[^\n`$;]+", "one word, as sbatch takes it"
        )
    _expect("time", settings.time, r"(\d+-)?\d+(:\d\d?){0,2}", "a time such as 04:00:00 or 2-12:00:00")
    _expect("signal", settings.signal, r"USR1@\d+", "USR1@SECONDS, or null; the other signals end torchrun itself")
    _expect("container_image", settings.container_image, r"\S+", "an image")
    for mount in settings.container_mounts:
        _expect("container_mounts", mount, r"/[^:,\n]*:/[^:,\n]*(:[\w+]+)?", "/HOST:/CONTAINER or /HOST:/CONTAINER:ro")
    if settings.signal is not None and int(settings.signal[5:]) >= _seconds(settings.time):
        raise InputError(
            f"executor.signal={settings.signal} comes before the job begins, which lasts executor.time={settings.time}"
            "; give fewer seconds or more time"
        )
    if settings.container_mounts and settings.container_image is None:
        raise InputError("executor.container_mounts have no effect without executor.container_image")
    if (settings.mail_user is None) != (settings.mail_type is None):
        raise InputError("executor.mail_user and executor.mail_type go together: to whom, and when (END,FAIL)")
    _check_ssh(settings)


def _check_ssh(settings: Slurm) -> None:
    ssh = settings.ssh
    if ssh.host is None:
        if given := [key for key in ("user", "identity", "job_dir") if getattr(ssh, key) is not None]:
            raise InputError(f"executor.ssh.{given[0]} has no effect without executor.ssh.host")
        return
    for key in ("host", "user"):
        _expect(f"ssh.{key}", getattr(ssh, key), r"[\w.@-]+", "a name")
    if ssh.user is None or ssh.job_dir is None or settings.workdir is None:
        raise InputError(
            "executor.ssh.host needs executor.ssh.user, executor.ssh.job_dir (folder there that receives script and "
            "logs) and executor.workdir (folder there that relative paths start from)"
        )
    for key, path in (("ssh.job_dir", ssh.job_dir), ("workdir", settings.workdir)):
        _expect(key, path, r"/[^\n]*", "an absolute path")


def _expect(key: str, value: str | None, pattern: str, expected: str) -> None:
    if value is not None and not re.fullmatch(pattern, value):
        raise InputError(f"executor.{key}={value[:80]!r}: expected {expected}")


def _seconds(time: str) -> int:
    """Of a time limit in one of sbatch's forms: MINUTES, MINUTES:SECONDS, H:M:S, DAYS-HOURS[:M[:S]]."""
    days, dash, rest = time.rpartition("-")
    parts = list(map(int, rest.split(":")))
    if dash:
        hours, minutes, seconds = [*parts, 0, 0][:3]
    elif len(parts) == 3:
        hours, minutes, seconds = parts
    else:
        hours, (minutes, seconds) = 0, [*parts, 0][:2]
    return ((int(days or 0) * 24 + hours) * 60 + minutes) * 60 + seconds
