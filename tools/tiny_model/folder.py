"""Packing of trained weights into the folder that is shipped, in the layout of released checkpoints."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from nemo_cosmos.atomic import finished_folder, write_text
from nemo_cosmos.checkpoint.convert import convert
from nemo_cosmos.checkpoint.files import read_tensors
from nemo_cosmos.checksums import seal_again, seal_folder
from nemo_cosmos.data.manifest import read_json
from nemo_cosmos.errors import InputError
from nemo_cosmos.models.tokenizer import load_tokenizer, save_tokenizer
from tiny_model.card import model_card, with_figures
from tiny_model.sizes import (
    LARGEST_FOLDER,
    MOST_NETWORK_PARAMETERS,
    MOST_TOKENIZER_PARAMETERS,
    TEXT_ENCODER,
    TOKENIZER,
)

TRAINING_LIST = "training_list.json"
REPOSITORY = Path(__file__).resolve().parents[2]
PACKAGED = REPOSITORY / "nemo_cosmos" / "tiny" / "checkpoints"


def round_tokenizer(source: Path, target: Path) -> None:
    """The tokenizer with weights rounded to bf16, and the latent statistics that were measured.

    Raises:
        InputError: it has more parameters than may be shipped, or no statistics.
    """
    if not (source / "latent_stats.json").is_file():
        raise InputError(f"{source}: no latent statistics; train with checkpoint.statistics_clips above 0")
    tokenizer = load_tokenizer(source)
    count = sum(parameter.numel() for parameter in tokenizer.module.parameters())
    if count > MOST_TOKENIZER_PARAMETERS:
        raise InputError(f"{source}: {count:,} parameters, expected at most {MOST_TOKENIZER_PARAMETERS:,}")
    save_tokenizer(
        target,
        tokenizer.module.to(torch.bfloat16),
        name=tokenizer.module.config.name,
        mean=tokenizer.mean,
        std=tokenizer.std,
        metadata={"parameters": count},
    )


def assemble(target: Path, parts: Path, weights: Mapping[str, Path], lists: Mapping[str, Path], command: str) -> None:
    """Write the folder that is shipped; it appears when complete, and replaces an older one.

    Args:
        parts: folder of the tokenizer and the text encoder.
        weights: exported averaged weights by the folder that each network gets.
        lists: what the clips were made of, by their shape.
        command: that made it all, for the model card.

    Raises:
        InputError: the folder is larger, or a network has more parameters, than may be shipped.
    """
    counts: dict[str, int] = {}
    counts[TOKENIZER] = read_json(parts / TOKENIZER / "config.json")["metadata"]["parameters"]
    with finished_folder(target) as temporary:
        for name in (TOKENIZER, TEXT_ENCODER):
            shutil.copytree(parts / name, temporary / name)
        seal_folder(temporary / TEXT_ENCODER)
        for name, file in weights.items():
            convert(file, temporary / name / "model.pt", "pt", dtype=torch.bfloat16)
            counts[name] = _parameters(temporary / name / "model.pt")
        if (count := sum(counts[name] for name in weights)) > MOST_NETWORK_PARAMETERS:
            raise InputError(f"the networks have {count:,} parameters, expected at most {MOST_NETWORK_PARAMETERS:,}")
        trained_on = training_list(lists)
        write_text(temporary / TRAINING_LIST, as_lines(trained_on))
        shutil.copyfile(REPOSITORY / "LICENSE", temporary / "LICENSE")
        write_text(temporary / "README.md", model_card(trained_on, counts, command))
        seal_folder(temporary)
        require_size(temporary)


def _parameters(file: Path) -> int:
    """Of the network; tables and the head that weights the loss are in fp32."""
    return sum(tensor.numel() for tensor in read_tensors(file).values() if tensor.dtype == torch.bfloat16)


def require_size(folder: Path) -> None:
    """
    Raises:
        InputError: the folder is too large to be shipped.
    """
    sizes = {path.relative_to(folder).parts[0]: 0 for path in folder.rglob("*")}
    for path in folder.rglob("*"):
        if path.is_file():
            sizes[path.relative_to(folder).parts[0]] += path.stat().st_size
    if (total := sum(sizes.values())) > LARGEST_FOLDER:
        largest = ", ".join(f"{name} {size:,}" for name, size in sorted(sizes.items(), key=lambda item: -item[1])[:6])
        raise InputError(
            f"the folder has {total:,} bytes ({largest}), expected at most {LARGEST_FOLDER:,}; make the tokenizer "
            "or the list of clips smaller (--tokenizer model.overrides.channels=..., --clips)"
        )


def training_list(lists: Mapping[str, Path]) -> dict[str, Any]:
    """Everything that training saw: how the clips were made, their checksums, and the photographs in them."""
    made_by, clips = {}, []
    photographs: dict[str, Any] = {}
    for shape, file in lists.items():
        found = read_json(file)
        made_by[shape] = found["made_by"]
        photographs |= {one["name"]: one for one in found["photographs"]}
        for one in found["clips"]:
            facts = {key: value for key, value in one.items() if key not in ("name", "split")}
            clips.append({"name": f"{shape}/{one['name']}", **facts})
    return {"made_by": made_by, "photographs": list(photographs.values()), "clips": clips}


def as_lines(values: Mapping[str, Any]) -> str:
    """JSON with one clip or photograph a line."""
    parts = []
    for key, value in values.items():
        rows = ",\n".join(json.dumps(row, separators=(",", ":")) for row in value) if isinstance(value, list) else None
        parts.append(f"{json.dumps(key)}: " + (json.dumps(value) if rows is None else f"[\n{rows}\n]"))
    return "{\n" + ",\n".join(parts) + "\n}\n"


def install(source: Path, target: Path = PACKAGED, figures: str | None = None) -> None:
    """Copy the finished folder into the package.

    Args:
        figures: Markdown for the model card, what was measured and how; None leaves the card as it is.

    Raises:
        InputError: it is not there, or too large.
    """
    if not (source / "README.md").is_file():
        raise InputError(f"{source}: nothing finished to install; run without --install until it is made")
    require_size(source)
    target.parent.mkdir(parents=True, exist_ok=True)
    with finished_folder(target) as temporary:
        shutil.copytree(source, temporary, dirs_exist_ok=True)
        if figures is not None:
            card = temporary / "README.md"
            write_text(card, with_figures(card.read_text(encoding="utf-8"), figures))
            seal_again(temporary, card.name)
