"""Sums a tensor over processes, as gradients are, and times it: `python -m nemo_cosmos.doctor.all_reduce`.

One process per GPU with NCCL, in which each pair of GPUs is timed by itself; two or more on the CPU with gloo.
"""

from __future__ import annotations

import contextlib
import datetime
import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from nemo_cosmos.doctor.finding import Finding

SECONDS = 90
"""After which processes that do not meet are said to hang."""
MEBIBYTES = {"gloo": 4, "nccl": 256}
ROUNDS = 3


def check_all_reduce(backend: str, processes: int, advice: str) -> Iterator[Finding]:
    """Time all-reduces in processes of their own.

    Args:
        backend: gloo or nccl.
        processes: one per GPU with nccl.
        advice: what to do where it fails.
    """
    subject = f"all-reduce over {backend}"
    with tempfile.TemporaryDirectory(prefix="nemo-cosmos-doctor-") as folder:
        try:
            times = _run(backend, processes, Path(folder))
        except (OSError, RuntimeError, ValueError) as error:
            yield Finding("fail", subject, f"{error}; {advice}")
            return
    size = MEBIBYTES[backend]
    rates = {pair: size / 2**10 / seconds for pair, seconds in times.items()}
    slowest = min(rates, key=lambda pair: rates[pair])
    unit = "GPUs" if backend == "nccl" else "processes"
    pairs = f"{len(rates)} pairs of {unit}" if len(rates) > 1 else f"2 {unit}"
    text = f"{pairs}, {size} MiB at {rates[slowest]:.2f} GiB/s"
    if len(rates) > 1:
        text += f" in the slowest, {slowest}, and {max(rates.values()):.2f} in the fastest"
    if max(rates.values()) > 4 * rates[slowest] and backend == "nccl":
        yield Finding("note", subject, f"{text}: `nvidia-smi topo -m` shows which links lie between them")
    else:
        yield Finding("ok", subject, text)


def _run(backend: str, processes: int, folder: Path) -> dict[str, float]:
    """Seconds of an all-reduce by pair.

    Raises:
        RuntimeError: a process ended with an error, or they hang; with the last line that one of them said.
    """
    command = [sys.executable, "-m", "nemo_cosmos.doctor.all_reduce", backend, str(processes), str(folder)]
    said = [folder / f"{rank}.log" for rank in range(processes)]
    running = []
    with contextlib.ExitStack() as files:
        for rank, log in enumerate(said):
            file = files.enter_context(log.open("w"))
            running.append(subprocess.Popen([*command, str(rank)], stdout=file, stderr=file))
        end = time.monotonic() + SECONDS
        try:
            codes = [process.wait(max(0.1, end - time.monotonic())) for process in running]
        except subprocess.TimeoutExpired as error:
            raise RuntimeError(f"no end after {SECONDS} s") from error
        finally:
            for process in running:
                process.kill()
                process.wait()
    for log, code in zip(said, codes, strict=True):
        if code:
            lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
            raise RuntimeError(f"{lines[-1][:300] if lines else 'no message'} (exit status {code})")
    return dict(json.loads((folder / "times.json").read_text()))


def main(backend: str, processes: int, folder: Path, rank: int) -> None:
    """One of the processes; the first writes ``times.json``.

    Raises:
        RuntimeError: a sum is wrong.
    """
    import torch
    import torch.distributed as dist

    device = torch.device("cuda", rank) if backend == "nccl" else torch.device("cpu")
    if backend == "nccl":
        torch.cuda.set_device(device)
    dist.init_process_group(
        backend, init_method=f"file://{folder / 'meet'}", rank=rank, world_size=processes,
        timeout=datetime.timedelta(seconds=SECONDS),
    )  # fmt: skip
    times: dict[str, float] = {}
    for pair in itertools.combinations(range(processes), 2):
        group = dist.new_group(list(pair))
        if rank in pair:
            values = torch.empty(MEBIBYTES[backend] * 2**18, device=device)
            for number in range(ROUNDS + 1):
                values.fill_(rank + 1.0)
                if device.type == "cuda":
                    torch.cuda.synchronize()
                start = time.perf_counter()
                dist.all_reduce(values, group=group)
                if device.type == "cuda":
                    torch.cuda.synchronize()
                seconds = time.perf_counter() - start
                if values[0].item() != sum(pair) + 2:
                    raise RuntimeError(f"ranks {pair}: the sum is {values[0].item()}, expected {sum(pair) + 2}")
                if number:  # The first one sets the connection up.
                    name = f"{pair[0]} and {pair[1]}"
                    times[name] = min(seconds, times.get(name, seconds))
    gathered: list[dict[str, float]] = [{} for _ in range(processes)]
    dist.all_gather_object(gathered, times)
    if rank == 0:
        merged = {name: seconds for part in gathered for name, seconds in part.items()}
        (folder / "times.json").write_text(json.dumps(merged))
    dist.destroy_process_group()


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4]))
