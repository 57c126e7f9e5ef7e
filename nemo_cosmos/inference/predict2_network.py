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

Kind = Literal["text2image", "video2world", "multiview"]
TINY_SIZE_NAME = "Tiny"
SIZES = ("2B", "14B", TINY_SIZE_NAME)
"""Of the released networks, and of those of nemo-cosmos-tiny."""
_NAMES: Mapping[Kind, str] = {"text2image": "Text2Image", "video2world": "Video2World", "multiview": "Multiview"}
_SCRIPTS: Mapping[Kind, str] = {
    "text2image": "text2image.py",
    "video2world": "video2world_predict2.py",
    "multiview": "multiview.py",
}


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
    """Where the download puts the weights of a released network; in nemo-cosmos-tiny one network lies in a folder."""
    if size == TINY_SIZE_NAME:
        return root / f"Cosmos-Predict2-Tiny-{_NAMES[kind]}" / "model.pt"
    names: dict[Kind, str] = {
        "text2image": "model.pt",
        "video2world": f"model-{resolution}p-{fps}fps.pt",
        "multiview": "model-720p-10fps-7views-29frames.pt",
    }
    return root / "nvidia" / f"Cosmos-Predict2-{size}-{_NAMES[kind]}" / names[kind]


def default_size(root: Path, kind: Kind) -> str:
    """The size of a root of released networks that is not named: Tiny where it alone is there, else 2B."""
    alone = released_file(root, kind, TINY_SIZE_NAME).is_file() and not (root / "nvidia").is_dir()
    return TINY_SIZE_NAME if alone else SIZES[0]


def identify(path: Path, kind: Kind, size: str | None, weights: Weights) -> Network:
    """The network at a path.

    Args:
        path: a ``.pt`` or ``.safetensors`` file, a run folder or one of diffusers.
        kind: what the command makes.
        size: "2B", "14B" or "Tiny", None: whichever it is.
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
        layers, width, other = _read_sizes(path, weights)
        found = _released(layers, width, kind)
        _require_size(path, layers, width, found, size, kind)
        if other not in (None, kind):
            raise _other_kind(path, other, kind)
        return Network(path, f"predict2-{(found or size or SIZES[0]).lower()}-{kind}")
    config = network_config(path) if path.is_dir() else read_model_config(folder)
    known = _released(config.num_layers, config.hidden_size, kind)
    # A network of a size of its own has the name of the one that it was made from.
    _require_size(path, config.num_layers, config.hidden_size, known or _preset_size(path), size, kind, lenient=True)
    meant = DiTConfig.preset(f"predict2-{SIZES[0].lower()}-{kind}")
    if config.family != meant.family:
        raise _other_kind(path, config.family, kind)
    if (other := _kind_of(config)) != kind:
        raise _other_kind(path, other, kind)
    return Network(path, None)


def _kind_of(config: DiTConfig) -> Kind:
    if config.multiview:
        return "multiview"
    return "video2world" if config.condition_mask else "text2image"


def _require_size(
    path: Path, layers: int, width: int, found: str | None, size: str | None, kind: Kind, *, lenient: bool = False
) -> None:
    """InputError where a network is not of the size that is meant; ``lenient`` lets those pass that have no name."""
    if lenient if found is None else size in (None, found):
        return
    described = f"a network of {layers} layers of width {width}" + (f", {found}" if found else "")
    dims = None if size is None else _dims(size, kind)
    if size is not None and dims is None:
        raise InputError(f"--model_size {size}: there is no {_NAMES[kind]} network of that size")
    known = [name for name in SIZES if _dims(name, kind) is not None]
    expected = " or ".join(known) if dims is None else f"{size}, {dims[0]} layers of width {dims[1]} (--model_size)"
    raise InputError(f"--dit_path {path} is {described}; expected {expected}")


def _other_kind(path: Path, found: str | None, kind: Kind) -> InputError:
    known = next((other for other in _NAMES if other == found), None)
    hint = "" if known is None else f"; examples/{_SCRIPTS[known]} takes those"
    name = found if known is None else _NAMES[known]
    return InputError(f"--dit_path {path} is a {name} network, expected one of Predict2 {_NAMES[kind]}{hint}")


def _dims(size: str, kind: Kind) -> tuple[int, int] | None:
    """Layers and width of a size; None where there is no network of it for this kind."""
    preset = PRESETS.get(f"predict2-{size.lower()}-{kind if size == TINY_SIZE_NAME else 'text2image'}")
    return None if preset is None else (preset["num_layers"], preset["hidden_size"])


def _released(layers: int, width: int, kind: Kind) -> str | None:
    return next((size for size in SIZES if _dims(size, kind) == (layers, width)), None)


def _preset_size(path: Path) -> str | None:
    """The released size that the settings of a run name."""
    run = run_folder_of(path)
    settings: Any = None if run is None else read_yaml(run / "config.yaml")
    model: Any = settings.get("model") if isinstance(settings, dict) else None
    match = re.match(r"predict2-(\d+b|tiny)-", str(model.get("preset"))) if isinstance(model, dict) else None
    return next((size for size in SIZES if match and size.lower() == match[1]), None)


def _read_sizes(path: Path, weights: Weights) -> tuple[int, int, Kind | None]:
    """Layers, width, and the kind where the channels of a released one tell it, from names and shapes of a file."""
    state: Mapping[str, Tensor] = open_weights(path, weights=weights, verify_files="size").state
    bare = {name.removeprefix("net."): name for name in state}
    numbers = {int(match[1]) for match in (re.match(r"blocks\.(\d{1,4})\.", name) for name in bare) if match}
    entrance = bare.get("x_embedder.proj.1.weight")
    if not numbers or entrance is None:
        raise InputError(
            f"--dit_path {path} is no network of Predict2: no tensors blocks.0.… and x_embedder.proj.1.weight in it"
        )
    width, features = (*shape_of(state, entrance), 0)[:2]
    kinds = {DiTConfig.preset(f"predict2-2b-{kind}").patch_features: kind for kind in _NAMES}
    return len(numbers), width, kinds.get(features)
