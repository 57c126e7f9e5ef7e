"""A Slurm of one machine: munge, slurmctld and slurmd of Debian's packages, in a folder of the test, as root."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "scontrol", "scancel", "sinfo", "squeue")
_CONF = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge/socket
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
JobRequeue=1
ReturnToService=2
MpiDefault=none
KillWait=60
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} RealMemory=4000 State=UNKNOWN
PartitionName=test Nodes={host} Default=YES MaxTime=INFINITE State=UP
"""


def missing() -> list[str]:
    """Programs that are not installed (apt-get install slurmd slurmctld slurm-client munge)."""
    path = f"{os.environ['PATH']}:/usr/sbin"
    return [program for program in PROGRAMS if shutil.which(program, path=path) is None]


class Cluster:
    """Runs jobs; ``environment`` is what Slurm's commands need."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        path = f"{os.environ['PATH']}:/usr/sbin"
        self.environment = {**os.environ, "SLURM_CONF": str(folder / "slurm.conf"), "PATH": path}

    def run(self, *command: str) -> str:
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True)
        assert done.returncode == 0, f"{command}: {done.stderr}"
        return done.stdout

    def submit(self, *command: str, name: str = "job") -> int:
        """Queue a job that becomes ``command``; its output goes to ``NAME.log`` of the folder, appended."""
        script = self.folder / f"{name}.sh"
        script.write_text(f"#!/bin/bash\nexec {' '.join(command)}\n")
        options = ["--parsable", "--requeue", "--open-mode=append", "--output", str(self.folder / f"{name}.log")]
        cpus = f"--cpus-per-task={os.cpu_count()}"
        return int(self.run("sbatch", *options, cpus, "--chdir", str(self.folder), str(script)))

    def state(self, job: int) -> dict[str, str]:
        """What ``scontrol show job`` says."""
        words = self.run("scontrol", "show", "job", str(job)).split()
        return dict(word.split("=", 1) for word in words if "=" in word)

    def wait(self, condition: Callable[[], bool], what: str, seconds: float = 120) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, f"{what}\n{self.logs()}"
            time.sleep(0.2)

    def logs(self) -> str:
        return "\n".join(f"{file.name}:\n{file.read_text()[-3000:]}" for file in sorted(self.folder.glob("*.log")))


@contextlib.contextmanager
def cluster(folder: Path) -> Iterator[Cluster]:
    """A node that takes jobs; everything that was started is ended afterwards."""
    for name in ("state", "spool", "munge"):
        (folder / name).mkdir(parents=True)
    ports = [_free_port(), _free_port()]
    host = socket.gethostname().split(".")[0]
    conf = _CONF.format(host=host, folder=folder, ports=ports, cpus=os.cpu_count())
    (folder / "slurm.conf").write_text(conf)
    (folder / "munge" / "key").write_bytes(os.urandom(1024))
    (folder / "munge" / "key").chmod(0o600)
    slurm = Cluster(folder)
    munge = folder / "munge"
    daemons = [
        ["munged", "--force", "--foreground", "--socket", f"{munge}/socket", "--key-file", f"{munge}/key",
         "--pid-file", f"{munge}/pid", "--log-file", f"{munge}/log", "--seed-file", f"{munge}/seed"],
        ["slurmctld", "-D"],
        ["slurmd", "-D"],
    ]  # fmt: skip
    started: list[subprocess.Popen[bytes]] = []
    try:
        for command in daemons:
            started.append(subprocess.Popen(command, env=slurm.environment, stderr=subprocess.DEVNULL))
            if command[0] == "munged":
                slurm.wait((munge / "socket").exists, "munge did not start")
        slurm.wait(lambda: _idle(slurm), "the node did not come up")
        yield slurm
    finally:
        with contextlib.suppress(AssertionError):
            slurm.run("scancel", "--full", "--signal=KILL", "--user=root")
            slurm.wait(lambda: not slurm.run("squeue", "--noheader"), "jobs are left", 60)
        for process in reversed(started):
            process.terminate()
        for process in started:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(10)
            process.kill()


def _idle(slurm: Cluster) -> bool:
    found = subprocess.run(["sinfo", "--noheader", "-o", "%t"], env=slurm.environment, capture_output=True, text=True)
    return found.stdout.strip() == "idle"


def _free_port() -> int:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return int(server.getsockname()[1])
