"""Reading processes end with the run that they read for."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from nemo_cosmos.data import workers
from nemo_cosmos.data.video import write_mp4
from tests.training.shards import write_shards

ROOT = Path(__file__).parents[2]

# Each prints the numbers of its workers once the first batch has come, and then waits to be killed.
LAST_LINES = """
print(*(worker.pid for worker in batches._workers), flush=True)
sys.stdin.read()
"""
WORLD_MODEL = """
import sys
from pathlib import Path
from unittest import mock
from nemo_cosmos.config import DataConfig
from nemo_cosmos.data.record import DataRecord
from nemo_cosmos.data.shards import ShardDataset
from nemo_cosmos.training import data
from nemo_cosmos.training.samples import Samples

if __name__ == "__main__":
    shards = ShardDataset(sys.argv[1])
    samples = Samples(shards, shards.manifest.latent_shape, DataRecord(sys.argv[1], "", len(shards)))
    config = DataConfig(path=sys.argv[1], micro_batch=1, global_batch=1, num_workers=2, text_length=8)
    module = data.CosmosDataModule(samples, config, seed=0)
    with mock.patch.object(data, "parallel_state") as state:
        state.get_data_parallel_rank.return_value, state.get_data_parallel_world_size.return_value = 0, 1
        batches = iter(module.train_dataloader().loader)
    next(batches)
"""
TOKENIZER = """
import sys
from pathlib import Path
from nemo_cosmos.training.tokenizer.config import TokenizerDataConfig
from nemo_cosmos.training.tokenizer.data import ClipDataset, ClipSource, make_loader

if __name__ == "__main__":
    config = TokenizerDataConfig(
        train="", num_frames=3, crop=[16, 16], micro_batch=1, global_batch=1, num_workers=2
    )
    source = ClipSource(tuple(sorted(Path(sys.argv[1]).rglob("*.mp4"))), None)
    batches = iter(make_loader(ClipDataset(source, config, 0), 0, 0, 1))
    next(batches)
"""
REMEMBER = """
from torch.utils.data import dataloader

made = []
begin = dataloader._MultiProcessingDataLoaderIter.__init__

def remember(self, loader):
    begin(self, loader)
    made.append(self)

dataloader._MultiProcessingDataLoaderIter.__init__ = remember
"""
"""Keeps the readers that are made in `made`."""
PREPARE = f"""{REMEMBER}
import sys
from nemo_cosmos.data.clips import find_clips
from nemo_cosmos.data.windows import WindowPlan
from nemo_cosmos.prepare import decode
if __name__ == "__main__":
    decoder = decode.ClipDecoder(find_clips(sys.argv[1]), WindowPlan(3, (16, 16)), 8, frozenset())
    windows = decode.decode_ahead(decoder, 2)
    next(windows)
    batches = made[0]
"""
PROBE = f"""{REMEMBER}
import sys
from pathlib import Path
from nemo_cosmos.data import file_pool
from nemo_cosmos.data.video import probe
if __name__ == "__main__":
    file_pool.usable_cores = lambda: 2
    found = file_pool.map_files(probe, 100 * sorted(Path(sys.argv[1]).rglob("*.mp4")))
    next(found)
    batches = made[0]
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("read")
    write_shards(root / "shards", shape=(3, 4, 6))
    for number in range(4):
        # So many frames that a worker still has some to hand over when the run is killed.
        video = torch.full((3, 60, 32, 32), 40 * number, dtype=torch.uint8)
        write_mp4(root / "clips" / "videos" / f"{number}.mp4", video, 8.0)
        (root / "clips" / "metas").mkdir(exist_ok=True)
        (root / "clips" / "metas" / f"{number}.txt").write_text("a caption")
    return root


@pytest.fixture
def watched() -> Iterator[list[int]]:
    """Handles of processes; what is left of them at the end is killed."""
    handles: list[int] = []
    yield handles
    for handle in handles:
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(handle, signal.SIGKILL)
        os.close(handle)


def ends(handle: int, seconds: float) -> bool:
    """Whether a handle becomes readable: that of a process when it ends."""
    poll = select.poll()
    poll.register(handle, select.POLLIN)
    return bool(poll.poll(seconds * 1000))


@pytest.mark.parametrize(
    ("script", "data"),
    [(WORLD_MODEL, "shards"), (TOKENIZER, "clips"), (PREPARE, "clips"), (PROBE, "clips")],
    ids=["train", "tokenizer", "prepare", "probe"],
)
def test_a_killed_run_leaves_no_reader(
    tmp_path: Path, folder: Path, watched: list[int], script: str, data: str
) -> None:
    file = tmp_path / "run.py"
    file.write_text(script + "".join(f"    {line}\n" for line in LAST_LINES.strip().splitlines()))
    run = subprocess.Popen(
        [sys.executable, str(file), str(folder / data)],
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert run.stdout is not None
        assert ends(run.stdout.fileno(), 60), "no worker has read anything"
        line = run.stdout.readline()
        assert len(line.split()) == 2, "the run ended before its workers read"
        watched.extend(os.pidfd_open(int(number)) for number in line.split())
        assert not any(ends(handle, 0) for handle in watched)
    finally:
        run.kill()
        run.wait()
    assert all(ends(handle, 4) for handle in watched)


ASK = """
import os, socket, sys
from multiprocessing import forkserver, get_context, reduction
from nemo_cosmos.data import workers

def work():
    pass

if __name__ == "__main__":
    workers._start_server()
    asked = get_context("forkserver").Process(target=work)
    asked.start()
    asked.join()
    handle, reader = forkserver.connect_to_new_process([])
    if sys.argv[1] == "cut short":
        os.write(reader, reduction.ForkingPickler.dumps({"name": "a reader"})[:-5])
        forkserver.connect_to_new_process([])  # And nothing for this one.
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(forkserver._forkserver._forkserver_address)
    else:
        os.write(reader, b"no message")
        os.read(handle, 8)  # Its number.
        os.read(handle, 8)  # It has ended.
    os._exit(0)
"""


@pytest.mark.parametrize(("told", "silent"), [("cut short", True), ("nonsense", False)])
def test_a_reader_whose_run_ends_while_it_starts_says_nothing(tmp_path: Path, told: str, silent: bool) -> None:
    """What the run was about to tell it comes in part or not at all; a run that goes on does hear of errors."""
    file = tmp_path / "run.py"
    file.write_text(ASK)
    done = subprocess.run(
        [sys.executable, "-W", "ignore", str(file), told],
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "ignore", "OMP_NUM_THREADS": "1"},
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    said = [line for line in done.stderr.splitlines() if "resource_tracker" not in line]
    assert ("UnpicklingError" in done.stderr) != silent
    assert not silent or said == []


def test_a_kernel_without_process_handles_is_asked_again_and_again(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def kill(process: int, number: int) -> None:
        asked.append(process)
        if len(asked) == 3:
            raise ProcessLookupError

    monkeypatch.delattr(os, "pidfd_open")
    monkeypatch.setattr(os, "kill", kill)
    monkeypatch.setattr(workers, "_POLL_SECONDS", 0.0)
    workers._wait_for(1234)
    assert asked == [1234] * 3


def test_a_run_that_has_ended_already_is_not_waited_for() -> None:
    done = subprocess.Popen([sys.executable, "-c", ""])
    done.wait()
    workers._wait_for(done.pid)
