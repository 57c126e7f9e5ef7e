"""The machine that is checked: what it trains, and what its GPUs are doing."""

from __future__ import annotations

import os
import platform
import subprocess
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

GIB = 2**30
NAN = float("nan")
VISIBLE = (os.environ.get("CUDA_VISIBLE_DEVICES") or ",".join(map(str, range(16)))).split(",")
"""Numbers of the GPUs that may be used."""


@dataclass(frozen=True)
class Plan:
    """What a machine trains, and in which two layouts."""

    layers: int
    first: tuple[str, ...]
    second: tuple[str, ...] | None


def layout(tensor: int, context: int, recompute: str) -> tuple[str, ...]:
    """Every setting, so that nothing of the experiment's own layout is left."""
    sequence = str(tensor > 1).lower()
    sizes = (f"parallel.tensor={tensor}", f"parallel.sequence={sequence}", f"parallel.context={context}")
    return (*sizes, "parallel.pipeline=1", f"parallel.recompute={recompute}")


PLANS = {
    # (GPUs, whether they have 141 GB): 18 bytes a weight, and activations.
    (1, False): Plan(6, layout(1, 1, "full"), None),
    (1, True): Plan(14, layout(1, 1, "full"), None),
    (2, False): Plan(14, layout(2, 1, "full"), layout(1, 2, "full")),
    (2, True): Plan(28, layout(2, 1, "selective"), layout(1, 2, "full")),
    (4, False): Plan(28, layout(2, 2, "full"), layout(4, 1, "full")),
}


@dataclass(frozen=True)
class Machine:
    gpus: int
    bytes_each: int
    rehearse: bool
    layers: int | None = None

    @classmethod
    def find(cls, rehearse: bool, layers: int | None) -> Machine:
        if rehearse:
            return cls(2, 0, True)
        count = torch.cuda.device_count()
        if not count:
            raise SystemExit("error: no GPU here; --rehearse goes through the same commands on a CPU")
        gpus = max(n for n in (1, 2, 4) if n <= count)
        return cls(gpus, torch.cuda.get_device_properties(0).total_memory, False, layers)

    @property
    def plan(self) -> Plan:
        if self.rehearse:
            return Plan(2, layout(2, 1, "none"), layout(1, 2, "none"))
        large = self.bytes_each > 100 * GIB
        plan = PLANS[self.gpus, large and self.gpus < 4]
        return replace(plan, layers=self.layers or plan.layers)

    def __str__(self) -> str:
        name = "CPU" if self.rehearse else torch.cuda.get_device_name(0)
        return f"{self.gpus} x {name}, torch {torch.__version__}, Python {platform.python_version()}"


class GpuMonitor(threading.Thread):
    """Asks nvidia-smi five times a second: (time, GPU, busy percent, bytes in use)."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.samples: list[tuple[float, int, int, int]] = []

    def run(self) -> None:
        query = ["nvidia-smi", "--query-gpu=index,utilization.gpu,memory.used", "--format=csv,noheader,nounits"]
        with subprocess.Popen([*query, "-lms", "200"], stdout=subprocess.PIPE, text=True) as process:
            for line in process.stdout or ():
                index, busy, used = (int(value) for value in line.split(","))
                self.samples.append((time.time(), index, busy, used * 2**20))

    def since(self, start: float, gpus: Sequence[int]) -> tuple[float, float]:
        """(mean share busy from the first busy moment to the last, most GiB in use) of some GPUs since ``start``."""
        visible = [VISIBLE[gpu] for gpu in gpus]
        found = [(busy, used) for when, gpu, busy, used in self.samples if when >= start and str(gpu) in visible]
        busy = [index for index, (share, _) in enumerate(found) if share]
        if not busy:
            return NAN, NAN
        working = [share for share, _ in found[busy[0] : busy[-1] + 1]]
        return sum(working) / len(working) / 100, max(used for _, used in found) / GIB
