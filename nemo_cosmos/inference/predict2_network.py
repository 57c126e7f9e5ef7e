"""Which network lies at a ``--dit_path`` of the Predict2 commands, held to the size and the kind that are meant."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from nemo_cosmos.checkpoint import network_config
from nemo_cosmos.checkpoint.sources import open_weights, read_model_config, run_of_file
from nemo_cosmos.checkpoint.stream import shape_of
from nemo_cosmos.choices import Weights
from nemo_cosmos.errors import InputError
from nemo_cosmos.inference.config import run_folder_of
from nemo_cosmos.models.dit.config import PRESETS, DiTConfig
from nemo_cosmos.typed import read_yaml

Kind = Literal["text2image", "video2world"]
SIZES = ("2B", "14B")
_NAMES: Mapping[Kind, str] = {"text2image": "Text2Image", "video2world": "Video2World"}


@dataclass(frozen=True)
class Network:
    """What a command generates with.

    Attributes:
        path: file or folder of the weights.
        preset: name of the network of a file that does not say; None where it does.
    """

    path: Path
    preset: str | None


def released_file(root: Path, kind: Kind, size: str, *, resolution: str = "720", fps: str = "16") -> Path:
    """Where the download puts the weights of a released network."""
    name = "model.pt" if kind == "text2image" else f"model-{resolution}p-{fps}fps.pt"
    return root / "nvidia" / f"Cosmos-Predict2-{size}-{_NAMES[kind]}" / name


def identify(path: Path, kind: Kind, size: str | None, weights: Weights) -> Network:
    """The network at a path.

    Args:
        path: a ``.pt`` or ``.safetensors`` file, a run folder or one of diffusers.
        kind: what the command makes.
        size: "2B" or "14B", None: whichever it is.
        weights: which of a file with both.

    Raises:
        InputError: nothing to load there, or a network of another size or kind, naming both.
    """
    if not path.exists():
        raise InputError(f"--dit_path {path}: nothing there; expected a .pt file, a run folder or a diffusers folder")
    if (path / "model.pt").is_file():
        path = path / "model.pt"
    folder = path if path.is_dir() else run_of_file(path)
    if folder is None:
        layers, width, extra = _read_sizes(path, weights)
        found = _released(layers, width)
        _require_size(path, layers, width, found, size)
        if extra is not None and extra != (kind == "video2world"):
            raise _other_kind(path, "Video2World" if extra else "Text2Image", kind)
        return Network(path, f"predict2-{(found or size or SIZES[0]).lower()}-{kind}")
    config = network_config(path) if path.is_dir() else read_model_config(folder)
    known = _released(config.num_layers, config.hidden_size)
    # A network of a size of its own has the name of the one that it was made from.
    _require_size(path, config.num_layers, config.hidden_size, known or _preset_size(path), size, lenient=True)
    meant = DiTConfig.preset(f"predict2-{SIZES[0].lower()}-{kind}")
    if config.family != meant.family or config.multiview:
        raise _other_kind(path, "multiview" if config.multiview else config.family, kind)
    if config.condition_mask != (kind == "video2world"):
        raise _other_kind(path, "Video2World" if config.condition_mask else "Text2Image", kind)
    return Network(path, None)


def _require_size(
    path: Path, layers: int, width: int, found: str | None, size: str | None, *, lenient: bool = False
) -> None:
    """InputError where a network is not of the size that is meant; ``lenient`` lets those pass that have no name."""
    if lenient if found is None else size in (None, found):
        return
    described = f"a network of {layers} layers of width {width}" + (f", {found}" if found else "")
    expected = (
        "2B or 14B" if size is None else f"{size}, {_dims(size)[0]} layers of width {_dims(size)[1]} (--model_size)"
    )
    raise InputError(f"--dit_path {path} is {described}; expected {expected}")


def _other_kind(path: Path, found: str, kind: Kind) -> InputError:
    script = {"text2image": "video2world_predict2.py", "video2world": "text2image.py"}[kind]
    hint = f"; examples/{script} takes those" if found in _NAMES.values() else ""
    return InputError(f"--dit_path {path} is a {found} network, expected one of Predict2 {_NAMES[kind]}{hint}")


def _dims(size: str) -> tuple[int, int]:
    preset = PRESETS[f"predict2-{size.lower()}-text2image"]
    return preset["num_layers"], preset["hidden_size"]


def _released(layers: int, width: int) -> str | None:
    return next((size for size in SIZES if _dims(size) == (layers, width)), None)


def _preset_size(path: Path) -> str | None:
    """The released size that the settings of a run name."""
    run = run_folder_of(path)
    settings: Any = None if run is None else read_yaml(run / "config.yaml")
    model: Any = settings.get("model") if isinstance(settings, dict) else None
    match = re.match(r"predict2-(\d+b)-", str(model.get("preset"))) if isinstance(model, dict) else None
    return match[1].upper() if match and match[1].upper() in SIZES else None


def _read_sizes(path: Path, weights: Weights) -> tuple[int, int, bool | None]:
    """Layers, width, and whether there is a channel for given frames, from the names and shapes of a file."""
    state: Mapping[str, Tensor] = open_weights(path, weights=weights, verify_files="size").state
    bare = {name.removeprefix("net."): name for name in state}
    numbers = {int(match[1]) for match in (re.match(r"blocks\.(\d{1,4})\.", name) for name in bare) if match}
    entrance = bare.get("x_embedder.proj.1.weight")
    if not numbers or entrance is None:
        raise InputError(
            f"--dit_path {path} is no network of Predict2: no tensors blocks.0.… and x_embedder.proj.1.weight in it"
        )
    width, features = (*shape_of(state, entrance), 0)[:2]
    config = DiTConfig.preset("predict2-2b-text2image")
    extra = {config.patch_features: False, config.patch_features + config.patch_size**2: True}.get(features)
    return len(numbers), width, extra
