"""One run to be started: the command that trains, and the lines of each executor around it.

NeMo-Run writes the batch script and the torchrun line; what starts on this machine replaces this process, so that its
output, its signals and its exit status are those of the line that is shown.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import shlex
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from nemo_cosmos.errors import InputError
from nemo_cosmos.launch.config import DockerLaunch, Launch, LocalLaunch, SlurmLaunch
from nemo_cosmos.launch.executors import (
    CONTAINER_WORKDIR,
    docker_executor,
    local_executor,
    local_folder,
    slurm_executor,
)

if TYPE_CHECKING:
    import nemo_run as run


@dataclass(frozen=True)
class Job:
    """A run of one experiment.

    Attributes:
        name: of the experiment.
        words: of the command behind `python -m nemo_cosmos`.
        launch: how it is started.
    """

    name: str
    words: tuple[str, ...]
    launch: Launch

    def lines(self) -> str:
        """The complete script: the batch file, or the line that starts on this machine."""
        if isinstance(self.launch, SlurmLaunch):
            with _experiment(self, dry=True) as (experiment, folder):
                experiment.dryrun(log=False, delete_exp_dir=False)
                script = (folder / f"{self.name}_sbatch.sh").read_text(encoding="utf-8")
                return script.replace(str(folder.parents[2]), str(local_folder(self.launch)))
        return shlex.join(self.command())

    def command(self) -> list[str]:
        """What is run on this machine, of the executors local and docker."""
        if isinstance(self.launch, DockerLaunch):
            executor = docker_executor(self.launch)
            return [*docker_options(executor, self.launch), executor.container_image, *self._torchrun(executor)]
        assert isinstance(self.launch, LocalLaunch)
        executor = local_executor(self.launch)
        env = [f"{name}={value}" for name, value in executor.env_vars.items()]
        return [*(["env", *env] if env else []), *self._torchrun(executor)]

    def start(self) -> str | None:
        """Submit the job and return its number; on this machine, become it.

        Raises:
            InputError: the program that starts it is missing, or Slurm refuses the job.
        """
        if isinstance(self.launch, SlurmLaunch):
            return submit(self)
        command = self.command()
        # torchrun of this environment, activated or not.
        os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
        _become(command)

    def script(self) -> run.Script:
        """The command as NeMo-Run's torchrun takes it."""
        import nemo_run as run

        return run.Script(path="nemo_cosmos", m=True, entrypoint="python", args=list(self.words))

    def _torchrun(self, executor: run.Executor) -> list[str]:
        from nemo_run.run.torchx_backend.packaging import package

        app = package(self.name, self.script(), executor, serialize_metadata_for_scripts=False)
        return [app.roles[0].entrypoint, *shlex.split(" ".join(app.roles[0].args))]


def docker_options(executor: run.DockerExecutor, launch: DockerLaunch) -> list[str]:
    """``docker run`` with the options that stand for an executor's fields."""
    settings = launch.executor
    options = ["docker", "run", "--rm", "--init", f"--ipc={executor.ipc_mode}", "--network=host"]
    if settings.gpus != "none":
        many = executor.num_gpus
        # Docker reads the value as a line of CSV, in which a list of devices is one quoted field.
        options.append("--gpus=" + (f'"{settings.gpus}"' if many is None else "all" if many == -1 else str(many)))
    options += [f"--ulimit={limit}" for limit in settings.ulimits]
    for volume in executor.volumes:
        options += ["-v", volume]
    options += ["-w", CONTAINER_WORKDIR]
    for name, value in executor.env_vars.items():
        options += ["-e", f"{name}={value}"]
    return options + [f"--user={user}" for user in executor.additional_kwargs.values()]


def submit(job: Job) -> str:
    """Give a job to Slurm; returns its number.

    Raises:
        InputError: there is no sbatch here, or it refuses the job; it says why.
    """
    assert isinstance(job.launch, SlurmLaunch)
    if job.launch.executor.ssh.host is None and shutil.which("sbatch") is None:
        raise InputError(
            "executor=slurm: there is no sbatch on PATH; call this on a login node of the cluster, name one with "
            "executor.ssh.host, or print the script with --dry-run"
        )
    from invoke.exceptions import UnexpectedExit

    try:
        with _experiment(job, dry=False) as (experiment, _):
            experiment.run(detach=True)
            handle = experiment.jobs[0].handle
    except UnexpectedExit as error:
        said = " ".join(error.result.stderr.split()) or f"status {error.result.exited}"
        raise InputError(f"{error.result.command.split()[0]} refused the job: {said}") from error
    # slurm_tunnel://nemo_run/NUMBER
    return str(handle).rstrip("/").rpartition("/")[2]


@contextlib.contextmanager
def _experiment(job: Job, *, dry: bool) -> Iterator[tuple[Any, Path]]:
    """NeMo-Run's experiment of one job, and its folder; of a dry one the folder is temporary."""
    import tempfile

    import nemo_run as run
    from nemo_run.core.frontend.console.api import CONSOLE

    assert isinstance(job.launch, SlurmLaunch)
    with contextlib.ExitStack() as stack:
        stack.callback(setattr, CONSOLE, "quiet", CONSOLE.quiet)
        CONSOLE.quiet = True
        stack.enter_context(_root_logger_kept())
        # What NeMo-Run calls would read what is meant for whoever calls this command.
        stack.enter_context(_no_input())
        base = local_folder(job.launch)
        if dry:
            base = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        identity = f"{job.name}_{time.time_ns()}"
        below = Path("experiments", job.name, identity)
        ssh = job.launch.executor.ssh
        there = Path(ssh.job_dir, job.name, identity) if ssh.job_dir else local_folder(job.launch) / below
        executor = slurm_executor(job.launch, there / job.name)
        experiment = run.Experiment(
            job.name, executor=executor, id=identity, base_dir=str(base), log_level="ERROR", clean_mode=True,
            enable_goodbye_message=False, skip_status_at_exit=True,
        )  # fmt: skip
        stack.enter_context(experiment)
        experiment.add(job.script(), name=job.name)
        yield experiment, base / below


@contextlib.contextmanager
def _root_logger_kept() -> Iterator[None]:
    """An experiment of NeMo-Run replaces the handlers of the root logger; afterwards they are what they were."""
    root = logging.getLogger()
    level, handlers = root.level, root.handlers[:]
    try:
        yield
    finally:
        root.setLevel(level)
        root.handlers[:] = handlers


@contextlib.contextmanager
def _no_input() -> Iterator[None]:
    before = sys.stdin
    with open(os.devnull, encoding="utf-8") as nothing:
        sys.stdin = nothing
        try:
            yield
        finally:
            sys.stdin = before


def _become(command: Sequence[str]) -> NoReturn:
    if shutil.which(command[0]) is None:
        hint = "install Docker, or print the line with --dry-run" if command[0] == "docker" else "install PyTorch"
        raise InputError(f"{command[0]} is not on PATH: {hint}")
    sys.stdout.flush()
    sys.stderr.flush()
    os.execvp(command[0], list(command))


def refuse_replaced(words: Sequence[str], launch: Launch) -> None:
    """InputError for what NeMo-Run would rewrite: outside a container it puts the job's folder for ``/nemo_run``."""
    if isinstance(launch, SlurmLaunch) and launch.executor.container_image is None:
        settings = launch.executor
        texts = [*words, *settings.env.values(), *settings.setup, settings.workdir or os.getcwd(), sys.executable]
        if found := [text for text in texts if re.search("/nemo_run", text)]:
            raise InputError(
                f"{found[0][:200]!r} holds /nemo_run, which NeMo-Run replaces with the folder of the job: give the "
                "path another name, for example a link"
            )
