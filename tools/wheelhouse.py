"""Collects the wheels that training needs on a GPU node without network.

    python tools/wheelhouse.py wheels --python 3.12
    # on the node, which brings torch, triton, numpy, safetensors and other common packages of its own:
    python -m pip install --no-index --no-deps --upgrade --target ~/site wheels/*.whl
    export PYTHONPATH=~/site

The pinned list for a Python version is `tools/wheelhouse-py<version>.txt`.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

PLATFORMS = ["2_39", "2_35", "2_34", "2_31", "2_28", "2_27", "2_24", "2_17"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=Path, help="folder that receives the wheels")
    parser.add_argument("--python", default="3.12", help="Python version of the node")
    parser.add_argument("--machine", default="x86_64", choices=["x86_64", "aarch64"], help="processor of the node")
    parser.add_argument("--list", type=Path, help="another pinned list")
    arguments = parser.parse_args()
    pinned = arguments.list or Path(__file__).with_name(f"wheelhouse-py{arguments.python}.txt")
    if not pinned.is_file():
        known = sorted(path.name for path in Path(__file__).parent.glob("wheelhouse-py*.txt"))
        parser.error(f"{pinned} does not exist; there is {', '.join(known)}, or give a list of your own with --list")
    lines = [line.strip() for line in pinned.read_text().splitlines() if line.strip() and not line.startswith("#")]
    sources = [line.split("#")[0].strip() for line in lines if line.endswith("# source only")]
    wheels = [line for line in lines if not line.endswith("# source only")]
    arguments.output.mkdir(parents=True, exist_ok=True)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    platforms = [f"manylinux_{tag}_{arguments.machine}" for tag in PLATFORMS]
    platforms += [f"manylinux2014_{arguments.machine}", f"manylinux1_{arguments.machine}"]
    target = ["--only-binary=:all:", "--implementation", "cp", "--python-version", arguments.python]
    target += [option for platform in platforms for option in ("--platform", platform)]
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as requirements:
        requirements.write("\n".join(wheels))
        requirements.flush()
        download = [*pip, "download", "--no-deps", *target, "-d", str(arguments.output), "-r", requirements.name]
        subprocess.run(download, check=True)
    # Distributed as source alone; both are pure Python, so the wheel built here fits any node.
    subprocess.run([*pip, "wheel", "--no-deps", "-w", str(arguments.output), *sources], check=True)
    write_empty_package(arguments.output, "wandb")
    size = sum(path.stat().st_size for path in arguments.output.glob("*.whl"))
    print(f"{arguments.output}: {len(list(arguments.output.glob('*.whl')))} wheels, {size / 2**20:.1f} MiB")


def write_empty_package(folder: Path, name: str) -> None:
    """A wheel of version 0 with an empty module: NeMo imports wandb (20 MB) at its top and only uses it when asked."""
    info = f"{name}-0.dist-info"
    files = {
        f"{name}.py": "",
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: 0\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: wheelhouse\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(f"{path},,\n" for path in [*files, f"{info}/RECORD"])
    with zipfile.ZipFile(folder / f"{name}-0-py3-none-any.whl", "w") as wheel:
        for path, text in {**files, f"{info}/RECORD": record}.items():
            wheel.writestr(path, text)


if __name__ == "__main__":
    main()
