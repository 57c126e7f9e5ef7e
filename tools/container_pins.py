"""What a container image keeps of its packages, and what it is given beside them.

python tools/container_pins.py kept            the compiled packages that are installed, as constraints of pip
python tools/container_pins.py requirements    what pyproject.toml requires, with the extra `launch`
python tools/container_pins.py check kept.txt  status 1 when one of them is another version now
"""

from __future__ import annotations

import re
import sys
from importlib.metadata import distributions
from pathlib import Path

import tomllib

COMPILED = r"torch(vision|audio)?|(pytorch-)?triton|numpy|apex|flash-attn.*|transformer-engine.*|nvidia-.*"
OURS = r"nvidia-(modelopt|resiliency-ext|lightning)"
"""Begin like those of CUDA and are plain Python."""


def kept() -> list[str]:
    names = {re.sub("[-_.]+", "-", one.metadata["Name"]).lower(): one.version for one in distributions()}
    return [f"{n}=={v}" for n, v in sorted(names.items()) if re.fullmatch(COMPILED, n) and not re.match(OURS, n)]


def requirements() -> list[str]:
    pyproject = Path(__file__).parents[1] / "pyproject.toml"
    project = tomllib.loads(pyproject.read_text(encoding="utf-8"))["project"]
    return [*project["dependencies"], *project["optional-dependencies"]["launch"]]


if sys.argv[1:2] == ["check"]:
    if replaced := set(Path(sys.argv[2]).read_text(encoding="utf-8").split()) - set(kept()):
        sys.exit(f"error: pip has replaced {', '.join(sorted(replaced))}")
else:
    print(*(kept() if sys.argv[1:] == ["kept"] else requirements()), sep="\n")
