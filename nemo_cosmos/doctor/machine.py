"""Devices, driver, memory for data workers, disks, and the Hugging Face account of this machine."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from nemo_cosmos.doctor.finding import Finding

OUTPUT_BYTES_WANTED = 20 * 2**30
"""Free space below which a first run is likely to stop: the environment and the demo take a few GiB."""
CACHE_BYTES_WANTED = 30 * 2**30
"""What T5-11B's encoder, the largest model that is fetched by name, takes with the file being written."""
SHARED_MEMORY_WANTED = 2 * 2**30
"""Containers have 64 MiB unless told otherwise, which data workers and NCCL fill at once."""
SHARED_MEMORY = Path("/dev/shm")
SMI_SECONDS = 30


def check_devices() -> Iterator[Finding]:
    """The GPUs that torch sees, and why it sees none where there is a driver."""
    import torch

    driver = driver_versions()
    if not torch.cuda.is_available():
        yield _no_gpu(torch.__version__, torch.version.cuda, driver)
        return
    for index in range(torch.cuda.device_count()):
        free, total = torch.cuda.mem_get_info(index)
        name = torch.cuda.get_device_name(index)
        text = f"{name}, {free / 2**30:.0f} of {total / 2**30:.0f} GiB free"
        if free < 0.9 * total:
            yield Finding("note", f"GPU {index}", f"{text}; another process holds the rest: nvidia-smi names it")
        else:
            yield Finding("ok", f"GPU {index}", text)
    yield compare_driver(torch.version.cuda, driver)


def _no_gpu(torch_version: str, runtime: str | None, driver: tuple[str, str] | None) -> Finding:
    if driver is None:
        broken = shutil.which("nvidia-smi") is not None
        where = f"torch {torch_version} runs on {os.cpu_count()} CPU cores with gloo"
        if broken:
            return Finding("fail", "GPU", f"nvidia-smi is here and finds no GPU or driver; {where}: load the driver")
        return Finding("note", "GPU", f"no GPU; {where}, which is enough for the demo and the tests alone")
    if runtime is None:
        return Finding(
            "fail", "GPU", f"driver {driver[0]} is here, but torch {torch_version} is built for the CPU: install the "
            "CUDA build of that version (https://pytorch.org/get-started/previous-versions)",
        )  # fmt: skip
    mismatch = compare_driver(runtime, driver)
    if mismatch.verdict == "fail":
        return mismatch
    return Finding(
        "fail", "GPU", f"driver {driver[0]} is here, but torch {torch_version} finds no GPU: look at "
        f"CUDA_VISIBLE_DEVICES={os.environ.get('CUDA_VISIBLE_DEVICES', '(unset)')}; a container needs --gpus=all",
    )  # fmt: skip


def driver_versions() -> tuple[str, str] | None:
    """Version of the driver and the newest CUDA that it runs, as nvidia-smi says; None where there is none."""
    try:
        said = subprocess.run(
            ["nvidia-smi"], capture_output=True, text=True, errors="replace", timeout=SMI_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    found = re.search(r"Driver Version: *([\d.]+).*?CUDA Version: *([\d.]+)", said.stdout, re.DOTALL)
    return (found[1], found[2]) if said.returncode == 0 and found else None


def compare_driver(runtime: str | None, driver: tuple[str, str] | None) -> Finding:
    """Whether the driver runs the CUDA that torch was built for: any of the same major version, or an older one."""
    if runtime is None or driver is None:
        return Finding("note", "driver", f"torch was built for CUDA {runtime}; nvidia-smi names no driver to compare")
    text = f"{driver[0]} runs CUDA up to {driver[1]}, torch was built for {runtime}"
    major, newest = int(runtime.split(".")[0]), int(driver[1].split(".")[0])
    if newest < major:
        return Finding("fail", "driver", f"{text}: update the driver, or install torch for CUDA {newest}")
    return Finding("ok", "driver", text)


def check_transformer_engine() -> Iterator[Finding]:
    """Whether it is there, on machines with a GPU."""
    import torch

    if not torch.cuda.is_available():
        return
    if importlib.util.find_spec("transformer_engine") is None:
        text = "not installed; PyTorch's fused attention is used (pip install 'nemo_cosmos[gpu]' adds it)"
        yield Finding("note", "Transformer Engine", text)
        return
    try:
        import transformer_engine.pytorch  # noqa: F401
    except (ImportError, OSError, RuntimeError) as error:
        advice = "reinstall it for this torch, or remove it: pip uninstall transformer_engine"
        yield Finding("fail", "Transformer Engine", f"installed, but does not import ({error}); {advice}")
        return
    yield Finding("ok", "Transformer Engine", importlib.metadata.version("transformer_engine"))


def check_shared_memory() -> Iterator[Finding]:
    """Room for what data workers and NCCL hand over between processes."""
    if not SHARED_MEMORY.is_dir():
        return
    size = shutil.disk_usage(SHARED_MEMORY).total
    text = f"{size / 2**30:.1f} GiB in {SHARED_MEMORY}"
    if size < SHARED_MEMORY_WANTED:
        advice = "start the container with --ipc=host or --shm-size=16g, or set data.num_workers=0"
        yield Finding("note", "shared memory", f"{text}, little for data workers: {advice}")
    else:
        yield Finding("ok", "shared memory", text)


def check_disk() -> Iterator[Finding]:
    """Room for runs and for downloaded models."""
    output = os.environ.get("OUTPUT_ROOT", ".")
    yield free_space("output folder", output, OUTPUT_BYTES_WANTED, "set OUTPUT_ROOT to a folder on a larger disk")
    from huggingface_hub.constants import HF_HUB_CACHE

    yield free_space(
        "Hugging Face cache", HF_HUB_CACHE, CACHE_BYTES_WANTED, "set HF_HOME to a folder on a larger disk"
    )


def free_space(subject: str, folder: str | Path, wanted: float, advice: str) -> Finding:
    """Whether a folder, or the nearest that exists above it, may be written to and has room for ``wanted`` bytes."""
    path = Path(folder).absolute()
    while not path.exists():
        path = path.parent
    if not path.is_dir():
        return Finding("fail", subject, f"{path} is a file, not a folder; {advice}")
    if not os.access(path, os.W_OK | os.X_OK):
        return Finding("fail", subject, f"{path} is not writable; {advice}, or change its owner or permissions")
    free = shutil.disk_usage(path).free
    text = f"{free / 2**30:.0f} GiB free for {Path(folder).absolute()}"
    if free < wanted:
        return Finding("note", subject, f"{text}, {wanted / 2**30:.0f} GiB are wanted: {advice}")
    return Finding("ok", subject, text)


def check_hugging_face() -> Iterator[Finding]:
    """Whether a token is there, which gated models ask for; it is neither shown nor tried."""
    from huggingface_hub import constants, get_token

    if constants.HF_HUB_OFFLINE:
        text = "HF_HUB_OFFLINE is set: nothing is downloaded, models must be in the cache already"
        yield Finding("note", "Hugging Face", text)
    if get_token() is None:
        text = "no token; gated models (nvidia/Cosmos-…) need one: huggingface-cli login, or set HF_TOKEN"
        yield Finding("note", "Hugging Face login", text)
    else:
        place = "the environment" if os.environ.get("HF_TOKEN") else constants.HF_TOKEN_PATH
        yield Finding("ok", "Hugging Face login", f"a token is in {place}; whether it is valid shows at a download")
