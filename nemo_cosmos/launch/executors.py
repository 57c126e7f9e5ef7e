"""NeMo-Run's executors from the settings of a launch.

NeMo-Run is imported when one is made. They can be given a recipe as well: ``run.run(recipe, executor=…)``.
"""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from nemo_cosmos.interrupts import SAVED_AFTER_USR1
from nemo_cosmos.launch.config import DockerLaunch, LocalLaunch, SlurmLaunch

if TYPE_CHECKING:
    import nemo_run as run

CONTAINER_WORKDIR = "/workspace/run"
"""Where Docker's containers have the folder that relative paths start from."""


def local_executor(launch: LocalLaunch) -> run.LocalExecutor:
    """torchrun on this machine, in the current folder."""
    import nemo_run as run

    return run.LocalExecutor(
        ntasks_per_node=launch.gpus_per_node, launcher=run.Torchrun(), env_vars=dict(launch.executor.env)
    )


def docker_executor(launch: DockerLaunch) -> run.DockerExecutor:
    """A container of one image, with the folder of relative paths and the volumes mounted."""
    import nemo_run as run

    settings = launch.executor
    counts = {"auto": launch.gpus_per_node, "all": -1}
    return run.DockerExecutor(
        container_image=settings.image,
        ntasks_per_node=launch.gpus_per_node,
        num_gpus=counts.get(settings.gpus),
        ipc_mode=settings.ipc,
        ulimits=[limit.replace("=", ":", 1) for limit in settings.ulimits],
        volumes=[f"{workdir(settings.workdir)}:{CONTAINER_WORKDIR}", *map(os.path.expanduser, settings.volumes)],
        additional_kwargs={"user": settings.user} if settings.user else {},
        env_vars=passed_environment() | settings.env,
        launcher=run.Torchrun(),
        packager=run.Packager(),
    )


def passed_environment() -> dict[str, str]:
    """Variables of this shell that settings may refer to and a container would not have."""
    return {name: os.environ[name] for name in ("OUTPUT_ROOT", "DATA_ROOT") if name in os.environ}


def slurm_executor(launch: SlurmLaunch, logs: Path) -> run.SlurmExecutor:
    """A job on ``launch.nodes`` nodes, one torchrun on each.

    Args:
        logs: folder of this job's logs, on the cluster.
    """
    import nemo_run as run

    settings = launch.executor
    folder = str(workdir(settings.workdir))
    mail = {"mail_user": settings.mail_user, "mail_type": settings.mail_type}
    # Training is told of the time limit by USR1; torchrun would end at it, without waiting for the save.
    ignoring = ["--ignore-signal=USR1"] if settings.signal else []
    return run.SlurmExecutor(
        account=settings.account,
        partition=settings.partition,
        qos=settings.qos,
        constraint=settings.constraint,
        time=settings.time,
        nodes=launch.nodes,
        ntasks_per_node=1,
        torchrun_nproc_per_node=launch.gpus_per_node,
        gpus_per_node=launch.gpus_per_node if settings.gres == "auto" else None,
        gres=settings.gres if settings.gres not in ("auto", "none") else None,
        cpus_per_task=settings.cpus_per_task,
        mem=settings.mem,
        exclusive=settings.exclusive or None,
        signal=settings.signal,
        retries=settings.retries,
        job_name_prefix="nemo-cosmos.",
        container_image=settings.container_image,
        container_mounts=[*settings.container_mounts, f"{folder}:{folder}"] if settings.container_image else [],
        additional_parameters={key: value for key, value in mail.items() if value is not None},
        srun_args=[*settings.srun_args, "env", f"--chdir={folder}", *ignoring],
        setup_lines="\n".join(_setup(settings_lines=settings.setup, launch=launch, logs=logs)),
        env_vars={name: shlex.quote(value) for name, value in settings.env.items()},
        tunnel=_tunnel(launch),
        packager=run.Packager(),
        launcher=run.Torchrun(rdzv_port=settings.rdzv_port),
        poll_estimated_start_time=False,
    )


def workdir(given: str | None) -> Path:
    """The folder that relative paths of the run start from."""
    return Path(given).expanduser() if given else Path.cwd()


def _tunnel(launch: SlurmLaunch) -> run.LocalTunnel | run.SSHTunnel:
    import nemo_run as run

    ssh = launch.executor.ssh
    if ssh.host is None:
        return run.LocalTunnel(job_dir=str(local_folder(launch) / "experiments"))
    identity = str(Path(ssh.identity).expanduser()) if ssh.identity else None
    return run.SSHTunnel(host=ssh.host, user=ssh.user, identity=identity, job_dir=ssh.job_dir)


def local_folder(launch: SlurmLaunch) -> Path:
    """Where scripts, and the logs of jobs that are submitted here, go."""
    given = launch.executor.log_dir or os.environ.get("NEMORUN_HOME") or "~/.nemo_run"
    return Path(given).expanduser().absolute()


def _setup(settings_lines: list[str], launch: SlurmLaunch, logs: Path) -> list[str]:
    settings = launch.executor
    lines = []
    if settings.container_image is None and settings.ssh.host is None:
        lines.append(f'export PATH={shlex.quote(str(Path(sys.executable).parent))}:"$PATH"')
    lines += settings_lines
    if settings.signal and settings.requeue:
        log = f"{shlex.quote(str(logs))}/log-*_${{SLURM_JOB_ID}}_${{SLURM_RESTART_COUNT:-0}}.out"
        lines += [
            "# A run that the signal before the time limit has ended with a save is queued again and goes on from it.",
            "queue_again() {",
            "    status=$?",
            f'    if [ "$status" -ne 0 ] && grep -q {shlex.quote(SAVED_AFTER_USR1)} {log}; then',
            '        scontrol requeue "$SLURM_JOB_ID"',
            "    fi",
            "}",
            "trap queue_again EXIT",
        ]
    return lines
