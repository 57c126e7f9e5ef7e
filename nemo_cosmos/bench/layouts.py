"""Every parallel layout through the real training path: same losses, time of a step, memory, bytes moved.

`exact`: 20 steps of 4 layers of width 512 on 495 tokens in bf16 on each layout, losses compared with one GPU.
`time`: steps of a 2-layer slice of the 7B at 56,320 tokens with optimizer and EMA; no checkpoint is written.
A group of processes works through the runs of its size; when one fails or hangs the group is ended and a new one
goes on with the next run.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

from nemo_cosmos.bench.layouts_report import report

WORKER = "nemo_cosmos.bench.layouts_worker"
SOURCE = Path(__file__).parents[2]
"""Where Python finds the package."""

# name, processes, overrides, extra overrides of the timed run
LAYOUTS: list[tuple[str, int, list[str]]] = [
    ("one", 1, []),
    ("tp2", 2, ["parallel.tensor=2"]),
    ("tp2+sp", 2, ["parallel.tensor=2", "parallel.sequence=true"]),
    ("pp2", 2, ["parallel.pipeline=2"]),
    ("pp2+vp2", 2, ["parallel.pipeline=2", "parallel.virtual_pipeline=2"]),
    ("cp2 all-to-all", 2, ["parallel.context=2", "parallel.context_backend=all_to_all"]),
    ("cp2 all-gather", 2, ["parallel.context=2", "parallel.context_backend=all_gather"]),
    ("dp2", 2, []),
    ("tp2+sp·cp2", 4, ["parallel.tensor=2", "parallel.sequence=true", "parallel.context=2"]),
    ("pp2·cp2", 4, ["parallel.pipeline=2", "parallel.context=2"]),
    ("tp2·pp2", 4, ["parallel.tensor=2", "parallel.pipeline=2"]),
    ("dp2·cp2", 4, ["parallel.context=2"]),
    ("cp4", 4, ["parallel.context=4"]),
    ("tp4+sp", 4, ["parallel.tensor=4", "parallel.sequence=true"]),
    ("dp4", 4, []),
]
# Recomputation changes memory, which the planner predicts; timed on one GPU.
RECOMPUTED = [("one, selective", 1, ["parallel.recompute=selective"]), ("one, full", 1, ["parallel.recompute=full"])]


def runs(world: int, kinds: list[str], *, smoke: bool) -> list[dict[str, Any]]:
    """What a group of ``world`` processes does, in order."""
    out = []
    for name, size, overrides in LAYOUTS:
        if size == world and "exact" in kinds:
            out.append({"kind": "exact", "layout": name, "world": world, "overrides": overrides})
    timed = [*LAYOUTS, *RECOMPUTED] if "time" in kinds else []
    for name, size, overrides in timed:
        if size == world and "vp2" not in name:  # two layers are too few for four chunks
            out.append({"kind": "time", "layout": name, "world": world, "overrides": overrides})
    return [{**run, "smoke": smoke, "number": number} for number, run in enumerate(out)]


def schedule(worlds: list[int], gpus: int, kinds: list[str]) -> list[list[tuple[int, list[str], int]]]:
    """Groups side by side where GPUs are free: phases of (processes, kinds of runs, first GPU)."""
    jobs = [(world, part) for world in worlds for part in ([[k] for k in kinds] if 2 * world <= gpus else [kinds])]
    phases: list[list[tuple[int, list[str], int]]] = []
    used = gpus
    for world, part in jobs:
        if used + world > gpus:
            phases.append([])
            used = 0
        phases[-1].append((world, part, used))
        used += world
    return phases


def settings(run: dict[str, Any], shards: Path, folder: Path) -> list[str]:
    """Overrides of the demo experiment for one run."""
    parallel = dict(item.split("=") for item in run["overrides"])
    split = [int(parallel.get(f"parallel.{axis}", 1)) for axis in ("tensor", "pipeline", "context")]
    replicas = run["world"] // (split[0] * split[1] * split[2])
    smoke = run["smoke"]
    common = [
        "experiment=demo_video2world", "model.preset=tiny-video2world", "model.init_from=null",
        f"data.path={shards}", f"output_dir={folder}",
        "data.tokenizer=bench",
        "data.micro_batch=1", "data.num_workers=0", "checkpoint.every_n_steps=100000", "checkpoint.export=false",
        "optimizer.warmup_steps=0", "objective.condition.min_frames=0", "objective.condition.max_frames=2",
        f"trainer.precision={'fp32' if smoke else 'bf16'}", *run["overrides"],
    ]  # fmt: skip
    if run["kind"] == "exact":
        size = "{num_layers: 4, hidden_size: 64, num_attention_heads: 4, text_width: 64, adaln_lora_dim: 8}"
        if not smoke:
            size = "{num_layers: 4, hidden_size: 512, num_attention_heads: 8, text_width: 64, adaln_lora_dim: 32}"
        return [*common, f"model.overrides={size}", "data.global_batch=4", "data.text_length=32",
                f"trainer.max_steps={3 if smoke else 20}", "optimizer.lr=1e-4"]  # fmt: skip
    # A pipeline needs several micro batches; other layouts run one per replica.
    batch = replicas * (4 if split[1] > 1 else 1)
    size = "{num_layers: 2, hidden_size: 64, num_attention_heads: 4, text_width: 64, adaln_lora_dim: 8}"
    if not smoke:
        size = "{num_layers: 2, hidden_size: 4096, num_attention_heads: 32, text_width: 1024, adaln_lora_dim: 256}"
    return [*common, f"model.overrides={size}", f"data.global_batch={batch}", "data.text_length=512",
            f"trainer.max_steps={3 if smoke else 6}", "optimizer.lr=1e-5"]  # fmt: skip


def write_shards(path: Path, latent: tuple[int, int, int], text_width: int, count: int) -> None:
    import torch

    from nemo_cosmos.data.sample import LatentSample, TokenizerIdentity
    from nemo_cosmos.data.shards import ShardWriter

    generator = torch.Generator().manual_seed(0)
    frames, height, width = latent
    tokenizer = TokenizerIdentity("bench", "0" * 64, 8, 8, 16)
    with ShardWriter(path, tokenizer=tokenizer, text_encoder="random", samples_per_shard=4) as writer:
        for number in range(count):
            smooth = torch.randn(16, 1, height, width, generator=generator)
            writer.write(
                LatentSample(
                    key=f"clip-{number:03d}",
                    latent=smooth + 0.3 * torch.randn(16, frames, height, width, generator=generator),
                    text=torch.randn(20 + number, text_width, generator=generator),
                    caption=f"clip {number}",
                    fps=24.0,
                    num_frames=1 + 8 * (frames - 1),
                    image_size=(height * 8, width * 8, height * 8, width * 8),
                )
            )


def read(path: Path) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text().splitlines() if line.endswith("}")]


def free_port() -> int:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return server.getsockname()[1]


def run_group(
    world: int, first_gpu: int, tasks: list[dict[str, Any]], folder: Path, timeout: float, stop_at: float
) -> None:
    """Start groups until every task has ended or failed; failures are written to ``failed.jsonl``."""
    task_file = folder / "tasks.json"
    first = 0
    while first < len(tasks) and time.monotonic() < stop_at:
        for rank in range(world):
            (folder / f"rank{rank}.jsonl").unlink(missing_ok=True)
        for task in tasks:
            task["port"] = free_port()
            run_folder = folder / f"{task['kind']}-{task['number']}"
            task["settings"] = settings(task, folder / f"shards-{task['kind']}", run_folder)
        task_file.write_text(json.dumps(tasks))
        processes = []
        for rank in range(world):
            environment = {
                **os.environ, "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(world),
                "LOCAL_WORLD_SIZE": str(world), "MASTER_ADDR": "127.0.0.1",
                "PYTHONPATH": os.pathsep.join([str(SOURCE), *filter(None, [os.environ.get("PYTHONPATH")])]),
                "TORCHELASTIC_RUN_ID": "bench", "CUDA_DEVICE_MAX_CONNECTIONS": "1",
                "CUDA_VISIBLE_DEVICES": ",".join(str(first_gpu + i) for i in range(world)),
                "TORCHINDUCTOR_CACHE_DIR": f"/tmp/inductor-{first_gpu + rank}", "TORCHINDUCTOR_COMPILE_THREADS": "4",
            }  # fmt: skip
            output = (folder / f"rank{rank}.log").open("a")
            command = [sys.executable, "-m", WORKER, str(task_file), str(first)]
            processes.append(
                subprocess.Popen(command, env=environment, stdout=output, stderr=output, start_new_session=True)
            )
        current, changed, count = first, time.monotonic(), -1
        reason = ""
        while not reason:
            time.sleep(0.2)
            records = read(folder / "rank0.jsonl")
            if len(records) != count:
                count, changed = len(records), time.monotonic()
                for record in records[-1:]:
                    if record["event"] == "start":
                        current = record["number"]
                        say(f"{world} GPUs: {tasks[current]['kind']} {tasks[current]['layout']}")
                    if record["event"] == "end":
                        current = record["number"] + 1
            codes = [process.poll() for process in processes]
            if all(code == 0 for code in codes):
                reason = "done"
            elif any(code not in (None, 0) for code in codes):
                time.sleep(2)
                reason = "failed"
            elif time.monotonic() - changed > timeout:
                reason = f"no progress for {timeout:.0f} s"
            elif time.monotonic() > stop_at:
                reason = "out of time"
        for process in processes:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        for rank in range(world):
            for record in read(folder / f"rank{rank}.jsonl"):
                if record["event"] == "end":
                    with (folder / "ended.jsonl").open("a") as file:
                        file.write(json.dumps({"rank": rank, **record}) + "\n")
        if reason == "done":
            return
        tail = next(
            (text for r in range(world) if "Error" in (text := (folder / f"rank{r}.log").read_text()[-2500:])), ""
        )
        say(f"{world} GPUs: {tasks[min(current, len(tasks) - 1)]['layout']}: {reason}\n{tail}")
        with (folder / "failed.jsonl").open("a") as file:
            file.write(json.dumps({"number": current, "reason": reason, "tail": tail[-1500:]}) + "\n")
        first = current + 1


START = time.monotonic()


def say(text: str) -> None:
    print(f"[{time.monotonic() - START:6.1f} s] {text}", flush=True)


def collect(tasks: list[dict[str, Any]], folder: Path) -> list[dict[str, Any]]:
    """One record a run: the slowest rank's time, the fullest rank's memory, rank 0's traffic."""
    ended: dict[int, list[dict[str, Any]]] = defaultdict(list)
    for end in read(folder / "ended.jsonl"):
        ended[end["number"]].append(end)
    failed = {failure["number"]: failure["reason"] for failure in read(folder / "failed.jsonl")}
    out = []
    for task in tasks:
        record: dict[str, Any] = {key: task[key] for key in ("kind", "layout", "world")}
        ranks = ended.get(task["number"], [])
        if len(ranks) < task["world"]:
            out.append({**record, "failed": failed.get(task["number"], "not run")})
            continue
        metrics = read(folder / f"{task['kind']}-{task['number']}" / "metrics.jsonl")
        fullest = max(ranks, key=lambda r: r["peak_bytes"])
        out.append(
            {
                **record,
                "losses": [m["loss"] for m in metrics],
                "edm": [m["edm_loss"] for m in metrics],
                "grad_norms": [m["grad_norm"] for m in metrics],
                "seconds": max(statistics.median(r["seconds"]) for r in ranks),
                "resident_bytes": [r["resident_bytes"] for r in sorted(ranks, key=lambda r: r["rank"])],
                "peak_bytes": [r["peak_bytes"] for r in sorted(ranks, key=lambda r: r["rank"])],
                "left_over_bytes": [r["left_over_bytes"] for r in sorted(ranks, key=lambda r: r["rank"])],
                "sent_bytes_per_step": fullest["sent_bytes_per_step"],
                "calls_per_step": fullest["calls_per_step"],
                "setup_and_run_seconds": ranks[0]["setup_and_run_seconds"],
                "settings": settings(task, Path("shards"), Path("run")),
            }
        )
    return out


def run(
    *,
    gpus: int,
    worlds: list[int] | None,
    only: list[str],
    smoke: bool,
    timeout: float,
    total: float,
    reference_file: Path | None,
    out: Path,
) -> None:
    """Go through the layouts, write ``layouts.jsonl`` and the logs, and print the tables.

    Args:
        gpus: of this machine.
        worlds: sizes of the groups; None: 1 and ``gpus``.
        only: "exact", "time" or both.
        smoke: tiny networks on the CPU.
        timeout: seconds without progress that count as a hang.
        total: seconds after which no run is started.
        reference_file: layouts.jsonl with the losses of one GPU.
        out: folder to write.
    """
    out.mkdir(parents=True, exist_ok=True)
    work_folder = Path(tempfile.mkdtemp(prefix="layouts-"))
    exact_shape = (5, 18, 22)  # 495 tokens, which neither 2 nor 4 divides
    time_shape = (3, 8, 8) if smoke else (16, 88, 160)
    reference = None
    if reference_file:
        reference = next(
            r for r in read(reference_file) if r["kind"] == "exact" and r["layout"] == "one" and "losses" in r
        )
    records: list[dict[str, Any]] = []
    stop_at = time.monotonic() + total
    source = work_folder / "shards"
    write_shards(source / "shards-exact", exact_shape, 64, 8)
    if "time" in only:
        write_shards(source / "shards-time", time_shape, 64 if smoke else 1024, 4)
    for phase in schedule(worlds or sorted({1, gpus}), gpus, only):
        threads = []
        for world, kinds, first_gpu in phase:
            folder = work_folder / f"world{world}-{'-'.join(kinds)}"
            folder.mkdir(parents=True)
            for shards in source.iterdir():
                (folder / shards.name).symlink_to(shards)
            tasks = runs(world, kinds, smoke=smoke)
            group = (world, first_gpu, tasks, folder, timeout, stop_at)
            threads.append((threading.Thread(target=run_group, args=group), tasks, folder))
        for thread, *_ in threads:
            thread.start()
        for thread, tasks, folder in threads:
            thread.join()
            records += collect(tasks, folder)
            (out / f"{folder.name}.log").write_text((folder / "rank0.log").read_text()[-200_000:])
        (out / "layouts.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    report(records, reference)


def show(files: list[Path]) -> None:
    """Print the tables of earlier layouts.jsonl again."""
    report([record for path in files for record in read(path)], None)
