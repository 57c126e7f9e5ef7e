"""``nemo-cosmos-tiny``: small weights that the package brings along, named where a model is named.

``nemo-cosmos-tiny/NAME`` is a folder of it, as OWNER/NAME is a repository of the hub, and ``nemo-cosmos-tiny`` alone
the part that is asked for. Nothing is downloaded. What lies at such a path in the current directory comes first, as it
does for repositories of the hub.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from nemo_cosmos.errors import InputError

TINY = "nemo-cosmos-tiny"
FOLDER = Path(__file__).parent / "checkpoints"
"""In the layout of a ``--checkpoint_dir`` with the released models."""
TinyPart = Literal["network", "tokenizer", "text_encoder"]
PARTS: Mapping[TinyPart, str] = {
    "network": "Cosmos-Predict1-Tiny-Video2World",
    "tokenizer": "Cosmos-Tokenize1-CV4x8x8-Tiny",
    "text_encoder": "google-t5/t5-11b",
}
"""What the name alone means, by what is asked for."""


def is_name(name: str | Path) -> bool:
    """Whether a model of the package is meant, be it installed here or only where a run will start."""
    first, _, rest = str(name).partition("/")
    return first == TINY and not os.path.lexists(name) and not (rest and os.path.isdir(first))


def packaged(name: str | Path, part: TinyPart | None = None) -> Path | None:
    """The folder of a packaged model, None for every other name.

    Args:
        name: ``nemo-cosmos-tiny``, or ``nemo-cosmos-tiny/NAME``; paths that are there are no such names.
        part: what the name alone stands for; None: the folder of all models.

    Raises:
        InputError: the package was installed without them, or has none of this name.
    """
    if not is_name(name):
        return None
    rest = str(name).partition("/")[2]
    if not FOLDER.is_dir():
        raise InputError(
            f"{name}: this installation is without {FOLDER}: install nemo_cosmos again from its wheel or source "
            "distribution, or give the path of a copy of that folder"
        )
    found = FOLDER / (rest or ("" if part is None else PARTS[part]))
    if ".." in Path(rest).parts or not found.exists():
        raise InputError(f"{name}: {TINY} has no such model, but {', '.join(_models())}")
    return found


def located(name: str | Path, part: TinyPart) -> Path:
    """The path that a name stands for: the packaged model's, else the name itself; raises as :func:`packaged`."""
    return packaged(name, part) or Path(name)


def is_packaged(path: str | Path) -> bool:
    """Whether a name or a path means a model of the package."""
    return packaged(path) is not None or FOLDER.resolve() in (Path(path).resolve(), *Path(path).resolve().parents)


def _models() -> list[str]:
    """What the folder has, as it is named."""
    folders = [path for path in sorted(FOLDER.iterdir()) if path.is_dir()]
    return [f"{TINY}/{path.name}" for path in folders if path.name.startswith("Cosmos-")] + [
        f"{TINY}/{PARTS['text_encoder']}"
    ]
