"""Two torchruns that meet at an address train one run, as on two machines without a scheduler."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from nemo_cosmos.checkpoint.files import latest_step
from tests.parallel.processes import run_processes
from tests.parallel.runs import losses, small_overrides, small_run, train
from tests.training.shards import write_shards

STEPS = ["trainer.max_steps=2", "checkpoint.export=false"]


def one_process(shards: Path, output: Path) -> None:
    train(small_run(shards, output, *STEPS))


def test_two_nodes_train_as_one_process_does(tmp_path: Path) -> None:
    """The nodes are the loopback addresses 127.0.0.1 and 127.0.0.2; the first one holds the rendezvous."""
    shards = write_shards(tmp_path / "shards", shape=(3, 4, 6))
    run_processes(1, one_process, shards, tmp_path / "alone", log=tmp_path / "log")
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        port = server.getsockname()[1]
    together = tmp_path / "together"
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "GLOO_SOCKET_IFNAME": "lo"}
    nodes = []
    for node, address in enumerate(("127.0.0.1", "127.0.0.2")):
        launcher = [
            sys.executable, "-m", "torch.distributed.run", "--nnodes=2", f"--node_rank={node}", "--nproc_per_node=1",
            "--rdzv_backend=c10d", f"--rdzv_endpoint=127.0.0.1:{port}", "--rdzv_id=test", f"--local_addr={address}",
        ]  # fmt: skip
        words = ["-m", "nemo_cosmos", "train", *small_overrides(shards, together, *STEPS, "trainer.num_nodes=2")]
        with (tmp_path / f"node{node}.log").open("w") as log:
            nodes.append(subprocess.Popen([*launcher, *words], env=environment, stdout=log, stderr=log))
    ended = [node.wait(200) for node in nodes]
    said = "\n".join((tmp_path / f"node{node}.log").read_text()[-3000:] for node in range(2))
    assert ended == [0, 0], said
    assert losses(together) == pytest.approx(losses(tmp_path / "alone"), rel=1e-6)
    assert latest_step(together / "checkpoints") == 2
