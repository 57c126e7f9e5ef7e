"""Collects the wheels that a GPU node without network needs.

    python tools/wheelhouse.py wheels --size train --python 3.12 --machine x86_64 --installed node.txt

The node brings torch, triton, numpy, safetensors and other common packages of its own; node.txt, its `pip freeze`,
says what else need not be carried there. The wheel of this checkout is among the others, and the line that installs
them is printed. The size `train` is for training from shards; `all` adds what reads and writes videos and diffusers
folders, so that `prepare`, `generate` and every form of `convert` run too. The pinned list for a Python version is
`tools/wheelhouse-py<version>.txt`; that of 3.12 has wheels for 3.11 too.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NoReturn

PLATFORMS = ["2_39", "2_35", "2_34", "2_31", "2_28", "2_27", "2_24", "2_17"]
ALSO_FOR = {"3.11": "3.12"}
"""Versions of Python that take the list of another one."""
LARGER, SOURCE_ONLY = "all", "source only"
"""Remarks that a line of the list may have after a `#`."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.error = refuse  # type: ignore[method-assign]
    parser.add_argument("output", type=Path, help="folder that receives the wheels")
    parser.add_argument("--size", default="train", choices=["train", LARGER], help="what will run (%(default)s)")
    parser.add_argument("--python", default="3.12", help="Python version of the node (%(default)s)")
    parser.add_argument("--machine", default="x86_64", choices=["x86_64", "aarch64"], help="processor of the node")
    parser.add_argument("--list", type=Path, help="another pinned list")
    parser.add_argument("--installed", type=Path, help="pip freeze of the node: what it has already is left out")
    arguments = parser.parse_args()
    listed = ALSO_FOR.get(arguments.python, arguments.python)
    pinned = arguments.list or Path(__file__).with_name(f"wheelhouse-py{listed}.txt")
    if not pinned.is_file():
        known = sorted(path.name for path in Path(__file__).parent.glob("wheelhouse-py*.txt"))
        parser.error(f"{pinned} does not exist; there is {', '.join(known)}, or give a list of your own with --list")
    present = installed(arguments.installed) if arguments.installed else set()
    wheels, sources = ([one for one in part if key(one) not in present] for part in read_list(pinned, arguments.size))
    arguments.output.mkdir(parents=True, exist_ok=True)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    platforms = [f"manylinux_{tag}_{arguments.machine}" for tag in PLATFORMS]
    platforms += [f"manylinux2014_{arguments.machine}", f"manylinux1_{arguments.machine}"]
    target = ["--only-binary=:all:", "--implementation", "cp", "--python-version", arguments.python]
    target += [option for platform in platforms for option in ("--platform", platform)]
    if wheels:
        with tempfile.NamedTemporaryFile("w", suffix=".txt") as requirements:
            requirements.write("\n".join(wheels))
            requirements.flush()
            download = [*pip, "download", "--no-deps", *target, "-d", str(arguments.output), "-r", requirements.name]
            subprocess.run(download, check=True)
    # Distributed as source alone; all are pure Python, so the wheels built here fit any node.
    sources.append(str(Path(__file__).resolve().parents[1]))
    subprocess.run([*pip, "wheel", "--no-deps", "-w", str(arguments.output), *sources], check=True)
    size = sum(path.stat().st_size for path in arguments.output.glob("*.whl"))
    print(f"{arguments.output}: {len(list(arguments.output.glob('*.whl')))} wheels, {size / 1e6:.1f} MB")
    print(f"on the node, with {arguments.output.name}/ copied there:\n    {INSTALL.format(arguments.output.name)}")


INSTALL = "python -m pip install --no-index --no-deps --upgrade --target ~/site {}/*.whl && export PYTHONPATH=~/site"


def key(requirement: str) -> str:
    """NAME==VERSION with the name as pip compares it."""
    name, _, version = requirement.partition("==")
    return f"{re.sub('[-_.]+', '-', name.strip()).lower()}=={version.strip()}"


def installed(freeze: Path) -> set[str]:
    """What `pip freeze` lists in one version."""
    return {key(line) for line in freeze.read_text().splitlines() if re.fullmatch(r"[\w.-]+==\S+", line.strip())}


def refuse(message: str) -> NoReturn:
    """End with one line; this script stands alone, for machines that have nothing installed yet."""
    print(f"error: {message}", file=sys.stderr)
    raise SystemExit(2)


def read_list(pinned: Path, size: str) -> tuple[list[str], list[str]]:
    """The requirements of a size: those that have a wheel, and those that come as source only."""
    wheels, sources = [], []
    for line in pinned.read_text().splitlines():
        requirement, _, remark = (part.strip() for part in line.partition("#"))
        if requirement and (remark != LARGER or size == LARGER):
            (sources if remark == SOURCE_ONLY else wheels).append(requirement)
    return wheels, sources


if __name__ == "__main__":
    try:
        main()
    except subprocess.CalledProcessError as error:
        refuse(f"pip ended with status {error.returncode}; its own lines above say why")
    except (OSError, UnicodeDecodeError) as error:
        refuse(str(error))
