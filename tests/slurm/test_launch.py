"""`nemo-cosmos launch executor=slurm` on a real Slurm: submitted, trained, queued again. Runs with SLURM_TEST=1."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from nemo_cosmos.checkpoint.files import latest_step
from tests.parallel.runs import small_overrides
from tests.slurm.cluster import Cluster
from tests.training.test_signals import ENDLESS, steps

pytestmark = pytest.mark.skipif(os.environ.get("SLURM_TEST", "0") != "1", reason="starts daemons; SLURM_TEST=1 asks")


def launch(slurm: Cluster, shards: Path, run: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """The command, with two processes on the cluster's node; scripts and logs go to ``run/logs``."""
    words = [
        "launch",
        *small_overrides(shards, run),
        *ENDLESS,
        "executor=slurm",
        "gpus_per_node=2",
        "parallel.tensor=2",
    ]
    own = ["executor.gres=none", f"executor.log_dir={run}/logs", f"executor.workdir={run.parent}"]
    env = {**slurm.environment, "PYTHONPATH": str(Path(__file__).parents[2]), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "nemo_cosmos", *words, *own, *options]
    return subprocess.run(command, env=env, capture_output=True, text=True, check=False)


def started(slurm: Cluster, shards: Path, run: Path) -> int:
    """The number of a job that has done three steps."""
    done = launch(slurm, shards, run)
    assert done.returncode == 0, done.stderr
    job = int(re.findall(r"submitted  job (\d+)", done.stdout)[0])
    slurm.wait(lambda: len(steps(run)) >= 3, f"the job did not train\n{logs(run)}")
    return job


def logs(run: Path) -> str:
    return "\n".join(file.read_text() for file in sorted(run.glob("logs/**/*.out")))


def goes_on(slurm: Cluster, job: int, run: Path) -> None:
    """The job is in the queue again; let it begin, and see it train from its save."""
    slurm.wait(lambda: slurm.state(job)["JobState"] == "PENDING", f"the job was not queued again\n{logs(run)}")
    saved = latest_step(run / "checkpoints")
    assert saved is not None and saved == steps(run)[-1]
    # Slurm waits two minutes; it must have taken leave of the job's processes before they are started again.
    daemon = slurm.folder / "slurmd.log"
    began = len(re.findall(rf"launch task StepId={job}\.", daemon.read_text()))
    ended = re.compile(rf"\[{job}\.\d+\] done with job")
    slurm.wait(lambda: len(ended.findall(daemon.read_text())) == began, "the job's steps did not end")
    slurm.run("scontrol", "update", f"JobId={job}", "StartTime=now")
    slurm.wait(lambda: len(steps(run)) >= saved + 2, f"the job did not go on\n{logs(run)}")
    assert steps(run) == list(range(1, len(steps(run)) + 1))
    assert f"iter_{saved:09d}: verified" in logs(run)


def cancel(slurm: Cluster, job: int) -> None:
    slurm.run("scancel", str(job))
    slurm.wait(lambda: slurm.state(job)["JobState"] == "CANCELLED", "the job was not cancelled")


def test_a_requeued_job_goes_on(slurm: Cluster, shards: Path, tmp_path: Path) -> None:
    """As after preemption: Slurm ends the job with SIGTERM and queues it again."""
    run = tmp_path / "run"
    job = started(slurm, shards, run)
    assert slurm.state(job)["JobName"] == "nemo-cosmos.demo_video2world"
    slurm.run("scontrol", "requeue", str(job))
    goes_on(slurm, job, run)
    cancel(slurm, job)
    assert slurm.state(job)["Restarts"] == "1"  # A job that its user ends stays ended.


def test_the_signal_before_the_time_limit_saves_and_queues_the_job_again(
    slurm: Cluster, shards: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    job = started(slurm, shards, run)
    slurm.run("scancel", "--signal=USR1", str(job))
    goes_on(slurm, job, run)
    assert "SIGUSR1: ended at step" in logs(run)
    cancel(slurm, job)


def test_a_mistake_is_not_repeated(slurm: Cluster, shards: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    done = launch(slurm, tmp_path / "nothing", run)
    assert done.returncode == 0 and "is not on this machine" in done.stderr
    job = int(re.findall(r"submitted  job (\d+)", done.stdout)[0])
    slurm.wait(lambda: slurm.state(job)["JobState"] == "FAILED", f"the job did not end\n{logs(run)}")
    assert "error: " in logs(run) and slurm.state(job)["Restarts"] == "0"


def test_what_sbatch_refuses_is_said(slurm: Cluster, shards: Path, tmp_path: Path) -> None:
    done = launch(slurm, shards, tmp_path / "run", "executor.partition=nowhere")
    assert done.returncode == 2
    assert re.fullmatch(r"error: sbatch refused the job: .*partition.*", done.stderr.splitlines()[-1])
