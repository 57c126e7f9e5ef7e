"""The network as diffusers' CosmosTransformer3DModel: names, configuration and folders."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from nemo_cosmos.errors import InputError
from nemo_cosmos.models.dit.config import DiTConfig
from nemo_cosmos.models.dit.families import FAMILIES, DiffusersForm
from nemo_cosmos.models.dit.parameters import parameters
from nemo_cosmos.models.dit.state_dict import check
from nemo_cosmos.typed import from_json, plain_name, read_object

if TYPE_CHECKING:
    from diffusers import CosmosTransformer3DModel

CLASS_NAME = "CosmosTransformer3DModel"
WEIGHTS = "diffusion_pytorch_model"

PIPELINE_INDEX = "model_index.json"
_DEFAULTS = {"extra_pos_embed_type": "learnable"}
"""What the class takes where a folder does not say how families differ."""
_SAME_IN_ALL = {"mlp_ratio": 4.0, "concat_padding_mask": True, "use_crossattn_projection": False,
                "img_context_dim_in": None, "controlnet_block_every_n": None}  # fmt: skip
"""Settings of the class that later networks of its makers have otherwise."""
_NOT_HELD = ("rope_table_dtype",)
"""Fields of a network that diffusers has no word for, and no need of one: its tables are always fp32."""


@cache
def diffusers_names(config: DiTConfig) -> dict[str, str]:
    """diffusers' name -> released name without prefix, for every parameter of the network.

    Raises:
        InputError: a network that the class cannot hold.
    """
    diffusers_config(config)
    return {
        theirs: released
        for parameter in parameters(config)
        for theirs, released in zip(parameter.diffusers or (), parameter.released, strict=True)
    }


def diffusers_form(config: DiTConfig) -> DiffusersForm:
    """How diffusers holds the family of a network; InputError where it does not."""
    form = FAMILIES[config.family].diffusers
    if form is None:
        raise InputError(f"diffusers has no class for networks of {config.family}; convert to a .pt file or a run")
    return form


def diffusers_config(config: DiTConfig) -> dict[str, Any]:
    """Arguments of diffusers' class.

    Raises:
        InputError: a network that the class cannot hold, such as one with several views or camera rays.
    """
    elsewhere = "convert to a .pt file or a run folder"
    form = diffusers_form(config)
    if config.multiview or config.plucker_channels:
        kind = "several views" if config.multiview else "camera rays"
        raise InputError(f"diffusers' {CLASS_NAME} has no form with {kind}; {elsewhere}")
    values = {
        "in_channels": config.in_channels + int(config.condition_mask),
        "out_channels": config.out_channels,
        "num_attention_heads": config.num_attention_heads,
        "attention_head_dim": config.head_dim,
        "num_layers": config.num_layers,
        "mlp_ratio": 4.0,
        "text_embed_dim": config.text_width,
        "adaln_lora_dim": config.adaln_lora_dim,
        "max_size": (config.max_frames, config.max_height, config.max_width),
        "patch_size": (1, config.patch_size, config.patch_size),
        "rope_scale": tuple(config.rope_ratio),
        "concat_padding_mask": True,
        **form.settings,
    }
    for name, (value, there) in _read_otherwise(config, values).items():
        raise InputError(
            f"diffusers' {CLASS_NAME} cannot say that a network of {config.family} has {name}={value!r}; "
            f"it stands there for {there!r}; {elsewhere}"
        )
    return values


def _read_otherwise(config: DiTConfig, values: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Fields of a network that its settings in diffusers, read back, would give another value: both values."""
    if config.in_channels != config.out_channels:
        return {"in_channels": (config.in_channels, config.out_channels)}
    there = _network_of({"_class_name": CLASS_NAME, **values}, Path(CLASS_NAME)).to_dict()
    fields = config.to_dict().items()
    return {name: (value, there[name]) for name, value in fields if name not in _NOT_HELD and there[name] != value}


def config_from_diffusers(folder: Path) -> DiTConfig:
    """The network in a folder of diffusers' class, or of a pipeline around it, from its ``config.json``.

    Raises:
        InputError: another class, a form of it that Cosmos 1.0 and 2.0 do not have, or a pipeline for other networks.
    """
    path = transformer_folder(folder) / "config.json"
    values = read_object(path)
    try:
        config = _network_of(values, path)
    except InputError as error:
        raise InputError(str(error) if str(path) in str(error) else f"{path}: {error}") from error
    except (TypeError, ValueError, LookupError) as error:
        raise InputError(f"{path}: not the settings of a {CLASS_NAME} ({type(error).__name__}: {error})") from error
    index = folder / PIPELINE_INDEX
    if transformer_folder(folder) != folder and index.is_file():
        _check_pipeline(read_object(index).get("_class_name"), config, index)
    return config


def _check_pipeline(found: Any, config: DiTConfig, index: Path) -> None:
    """A pipeline that samples in another way says that its network is of another family than it looks."""
    expected = diffusers_form(config).pipelines[config.condition_mask]
    if found != expected:
        raise InputError(
            f"{index}: found the pipeline {str(found)[:80]!r}, but its transformer is one of {config.family}, for "
            f"which it is {expected}; give the folder {index.parent / 'transformer'} if it is the network you mean"
        )


def _network_of(values: dict[str, Any], path: Path) -> DiTConfig:
    if values.get("_class_name") != CLASS_NAME:
        raise InputError(f"{path}: found the class {values.get('_class_name')!r}, expected {CLASS_NAME}")
    family, form = _family_of(values, path)
    out_channels = values.get("out_channels", 16)
    extra = values.get("in_channels", 16) - out_channels
    other = {key: values[key] for key, value in _SAME_IN_ALL.items() if key in values and values[key] != value}
    patch = list(values.get("patch_size", (1, 2, 2)))
    if other or extra not in (0, 1) or patch[0] != 1 or patch[1] != patch[2]:
        raise InputError(f"{path}: not a network of Cosmos 1.0 or 2.0 ({other or values})")
    heads, width = values["num_attention_heads"], values["attention_head_dim"]
    if type(heads) is not int or type(width) is not int:
        raise InputError(f"{path}: num_attention_heads and attention_head_dim have to be whole numbers")
    max_frames, max_height, max_width = values.get("max_size", (128, 240, 240))
    rope = values.get("rope_scale", (2.0, 1.0, 1.0))
    return DiTConfig(
        family=family,
        hidden_size=heads * width,
        num_layers=values["num_layers"],
        num_attention_heads=heads,
        in_channels=out_channels,
        out_channels=out_channels,
        condition_mask=extra == 1,
        text_width=values.get("text_embed_dim", 1024),
        adaln_lora_dim=values.get("adaln_lora_dim", 256),
        patch_size=patch[1],
        max_frames=max_frames,
        max_height=max_height,
        max_width=max_width,
        rope_ratio=(rope[0], rope[1], rope[2]),
        **form.network,
    )


def _family_of(values: dict[str, Any], path: Path) -> tuple[str, DiffusersForm]:
    forms = {name: family.diffusers for name, family in FAMILIES.items() if family.diffusers is not None}
    for name, form in forms.items():
        if all(values.get(key, _DEFAULTS[key]) == value for key, value in form.settings.items()):
            return name, form
    found = ", ".join(f"{key}={str(values.get(key))[:80]!r}" for key in _DEFAULTS)
    known = " or ".join(f"{dict(form.settings)} ({name})" for name, form in forms.items())
    raise InputError(f"{path}: {found}; networks that are known here have {known}")


def transformer_folder(folder: Path) -> Path:
    """``folder`` itself, or the transformer inside a pipeline's folder."""
    return folder / "transformer" if (folder / "transformer" / "config.json").is_file() else folder


def is_diffusers_folder(folder: Path) -> bool:
    """Whether diffusers' ``save_pretrained`` could have written the folder."""
    return (transformer_folder(folder) / "config.json").is_file()


@dataclass
class _Index:
    """What says which file of several holds a tensor."""

    weight_map: dict[str, str]
    metadata: Any = None


class DiffusersWeights(Mapping[str, Tensor]):
    """The tensors of a diffusers folder under their released names, read one at a time."""

    def __init__(self, folder: Path, config: DiTConfig) -> None:
        self.folder = transformer_folder(folder)
        self._files: dict[str, Any] = {}
        renamed = diffusers_names(config)
        # A name that is unknown stays as it is, so that loading reports it.
        self._where = {renamed.get(name, name): (name, file) for name, file in self._index().items()}

    def _index(self) -> dict[str, str]:
        index, single = self.folder / f"{WEIGHTS}.safetensors.index.json", f"{WEIGHTS}.safetensors"
        if index.is_file():
            found = from_json(_Index, read_object(index), str(index)).weight_map
            return {name: plain_name(file, f"{index}: {name[:100]}") for name, file in found.items()}
        if not (self.folder / single).is_file():
            raise InputError(f"{self.folder}: neither {single} nor {index.name} in it")
        return dict.fromkeys(self._open(single).keys(), single)

    def _open(self, file: str) -> Any:
        if file not in self._files:
            path = self.folder / file
            try:
                self._files[file] = safe_open(path, framework="pt")
            except (OSError, SafetensorError) as error:
                raise InputError(f"{path}: not a readable safetensors file ({error})") from error
        return self._files[file]

    def __iter__(self) -> Iterator[str]:
        return iter(self._where)

    def __len__(self) -> int:
        return len(self._where)

    def shape_of(self, name: str) -> tuple[int, ...]:
        """The shape of a tensor, without reading it."""
        return tuple(self._slice(name).get_shape())

    def dtype_of(self, name: str) -> torch.dtype:
        """The dtype of a tensor, without reading more than nothing of it."""
        return self._slice(name)[:0].dtype

    def _slice(self, name: str) -> Any:
        key, file = self._where[name]
        try:
            return self._open(file).get_slice(key)
        except SafetensorError as error:
            raise InputError(f"{self.folder / file}: {key[:100]} cannot be read ({error})") from error

    def __getitem__(self, name: str) -> Tensor:
        key, file = self._where[name]
        try:
            return self._open(file).get_tensor(key)
        except SafetensorError as error:
            raise InputError(f"{self.folder / file}: {key[:100]} cannot be read ({error})") from error


def build_transformer(config: DiTConfig, state: Mapping[str, Tensor]) -> CosmosTransformer3DModel:
    """diffusers' network around the tensors of ``state`` (released names, with or without prefix)."""
    from diffusers import CosmosTransformer3DModel

    arguments = diffusers_config(config)
    check(config, state)
    given = {name.removeprefix("net."): name for name in state}
    with torch.device("meta"):
        model = CosmosTransformer3DModel(**arguments)
    tensors = {theirs: state[given[name]] for theirs, name in diffusers_names(config).items()}
    model.load_state_dict(tensors, assign=True)
    return model.eval().requires_grad_(False)
