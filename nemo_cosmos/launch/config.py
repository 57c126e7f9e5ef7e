"""How runs are started: the settings of `conf/launch.yaml` and of each file of `conf/executor`."""

from __future__ import annotations

from dataclasses import dataclass, field

from nemo_cosmos.config import between


@dataclass
class LocalSettings:
    """torchrun on this machine."""

    env: dict[str, str] = field(default_factory=dict)


@dataclass
class DockerSettings:
    """A container on this machine."""

    image: str = "nemo-cosmos"
    workdir: str | None = None
    """Folder that relative paths start from; none: the current one."""
    volumes: list[str] = field(default_factory=lambda: ["~/.cache/huggingface:/cache/huggingface"])
    gpus: str = "auto"
    """auto: as many as `gpus_per_node`; all, none, or device=LIST."""
    ipc: str = "host"
    ulimits: list[str] = field(default_factory=lambda: ["memlock=-1", "stack=67108864"])
    user: str | None = None
    env: dict[str, str] = field(default_factory=lambda: {"HF_HOME": "/cache/huggingface"})


@dataclass
class SshSettings:
    """A login node to submit from."""

    host: str | None = None
    user: str | None = None
    identity: str | None = None
    job_dir: str | None = None


@dataclass
class SlurmSettings:
    """A job of a Slurm cluster."""

    account: str | None = None
    partition: str | None = None
    qos: str | None = None
    constraint: str | None = None
    time: str = "04:00:00"
    gres: str = "auto"
    """auto: `--gpus-per-node`; none: nodes without GPUs; otherwise what `--gres` is given."""
    cpus_per_task: int | None = between(1, 2**16, None)
    mem: str | None = None
    exclusive: bool | None = None
    mail_user: str | None = None
    mail_type: str | None = None
    signal: str | None = "USR1@600"
    requeue: bool = True
    retries: int = between(0, 1000, 0)
    container_image: str | None = None
    container_mounts: list[str] = field(default_factory=list)
    workdir: str | None = None
    setup: list[str] = field(default_factory=list)
    srun_args: list[str] = field(default_factory=list)
    rdzv_port: int = between(1024, 65535, 29500)
    log_dir: str | None = None
    ssh: SshSettings = field(default_factory=SshSettings)
    env: dict[str, str] = field(default_factory=lambda: {"TORCH_ELASTIC_SHUTDOWN_TIMEOUT": "600"})


@dataclass
class Launch:
    """Machines and processes."""

    nodes: int = between(1, 2**16, 1)
    gpus_per_node: int = between(1, 2**10, 8)
    """Processes on each node, one per GPU."""


@dataclass
class LocalLaunch(Launch):
    executor: LocalSettings = field(default_factory=LocalSettings)


@dataclass
class DockerLaunch(Launch):
    executor: DockerSettings = field(default_factory=DockerSettings)


@dataclass
class SlurmLaunch(Launch):
    executor: SlurmSettings = field(default_factory=SlurmSettings)


EXECUTORS: dict[str, type[Launch]] = {"local": LocalLaunch, "docker": DockerLaunch, "slurm": SlurmLaunch}
