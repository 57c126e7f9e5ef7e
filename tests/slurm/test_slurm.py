"""Training under a real Slurm: signals and requeueing, alone and through torchrun. Runs with SLURM_TEST=1."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from nemo_cosmos.checkpoint.files import latest_step
from tests.parallel.runs import small_overrides
from tests.slurm.cluster import Cluster
from tests.training.test_signals import ENDLESS, steps

pytestmark = pytest.mark.skipif(os.environ.get("SLURM_TEST", "0") != "1", reason="starts daemons; SLURM_TEST=1 asks")
ALONE = [sys.executable, "-m", "nemo_cosmos"]
TWO = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", "-m", "nemo_cosmos"]


def submit(slurm: Cluster, launcher: list[str], shards: Path, run: Path, name: str, *options: str) -> int:
    words = [*launcher, "train", *small_overrides(shards, run), *ENDLESS, *options]
    job = slurm.submit(f"env PYTHONPATH={Path(__file__).parents[2]}", *(f"'{word}'" for word in words), name=name)
    slurm.wait(lambda: len(steps(run)) >= 3, f"{name} did not train")
    return job


def test_usr1_before_the_time_limit_saves(slurm: Cluster, shards: Path, tmp_path: Path) -> None:
    """What ``sbatch --signal=B:USR1@300`` sends."""
    run = tmp_path / "run"
    job = submit(slurm, ALONE, shards, run, "usr1")
    slurm.run("scancel", "--signal=USR1", "--batch", str(job))
    slurm.wait(lambda: slurm.state(job)["JobState"] == "FAILED", "the job did not end")
    assert slurm.state(job)["ExitCode"] == "138:0"
    assert latest_step(run / "checkpoints") == steps(run)[-1]
    assert not list(slurm.folder.glob("hpc_ckpt*"))


@pytest.mark.parametrize(
    ("launcher", "layout"), [(ALONE, []), (TWO, ["parallel.tensor=2"])], ids=["alone", "torchrun"]
)
def test_a_requeued_job_goes_on(
    launcher: list[str], layout: list[str], slurm: Cluster, shards: Path, tmp_path: Path
) -> None:
    run, name = tmp_path / "run", f"requeue{len(layout)}"
    job = submit(slurm, launcher, shards, run, name, *layout)
    slurm.run("scontrol", "requeue", str(job))
    slurm.wait(lambda: slurm.state(job)["JobState"] == "PENDING", "the job was not queued again")
    saved = latest_step(run / "checkpoints")
    assert saved is not None and saved == steps(run)[-1]
    slurm.run("scontrol", "update", f"JobId={job}", "StartTime=now")
    slurm.wait(lambda: len(steps(run)) >= saved + 2, "the job did not go on")
    assert steps(run) == list(range(1, len(steps(run)) + 1))
    assert f"iter_{saved:09d}: verified" in (slurm.folder / f"{name}.log").read_text()
    slurm.run("scancel", str(job))
    slurm.wait(lambda: slurm.state(job)["JobState"] in ("CANCELLED", "COMPLETING"), "the job was not cancelled")
