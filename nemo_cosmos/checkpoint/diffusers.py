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
from nemo_cosmos.models.dit.state_dict import check, original_shapes
from nemo_cosmos.typed import from_json, plain_name, read_object

if TYPE_CHECKING:
    from diffusers import CosmosTransformer3DModel

CLASS_NAME = "CosmosTransformer3DModel"
WEIGHTS = "diffusion_pytorch_model"

RENAMES: dict[str, tuple[tuple[str, str], ...]] = {
    "predict1": (
        ("t_embedder.1", "time_embed.t_embedder"), ("affline_norm", "time_embed.norm"),
        (".blocks.0.block.attn", ".attn1"), (".blocks.1.block.attn", ".attn2"), (".blocks.2.block", ".ff"),
        (".blocks.0.adaLN_modulation.", ".norm1.linear_"), (".blocks.1.adaLN_modulation.", ".norm2.linear_"),
        (".blocks.2.adaLN_modulation.", ".norm3.linear_"), ("to_q.0", "to_q"), ("to_q.1", "norm_q"),
        ("to_k.0", "to_k"), ("to_k.1", "norm_k"), ("to_v.0", "to_v"), ("layer1", "net.0.proj"), ("layer2", "net.2"),
        ("proj.1", "proj"), ("x_embedder", "patch_embed"), ("extra_pos_embedder", "learnable_pos_embed"),
        ("final_layer.adaLN_modulation.", "norm_out.linear_"), ("final_layer.linear", "proj_out"),
        ("blocks.block", "transformer_blocks."),
    ),
    "predict2": (
        ("t_embedder.1", "time_embed.t_embedder"), ("t_embedding_norm", "time_embed.norm"),
        ("adaln_modulation_self_attn.", "norm1.linear_"), ("adaln_modulation_cross_attn.", "norm2.linear_"),
        ("adaln_modulation_mlp.", "norm3.linear_"), ("self_attn.", "attn1."), ("cross_attn.", "attn2."),
        ("q_proj", "to_q"), ("k_proj", "to_k"), ("v_proj", "to_v"), ("output_proj", "to_out.0"), ("q_norm", "norm_q"),
        ("k_norm", "norm_k"), ("mlp.layer1", "ff.net.0.proj"), ("mlp.layer2", "ff.net.2"), ("proj.1", "proj"),
        ("x_embedder", "patch_embed"), ("final_layer.adaln_modulation.", "norm_out.linear_"),
        ("final_layer.linear", "proj_out"), ("blocks.", "transformer_blocks."),
    ),
}  # fmt: skip
"""Released names -> diffusers' names: substrings replaced in this order."""


def diffusers_name(name: str, family: str) -> str:
    """A released name, without the ``net.`` prefix, as diffusers has it."""
    for old, new in RENAMES[family]:
        name = name.replace(old, new)
    return name


@cache
def diffusers_names(config: DiTConfig) -> dict[str, str]:
    """diffusers' name -> released name without prefix, for every parameter of the network."""
    return {diffusers_name(name, config.family): name for name in original_shapes(config)}


def diffusers_config(config: DiTConfig) -> dict[str, Any]:
    """Arguments of diffusers' class.

    Raises:
        InputError: a network that the class cannot hold: several views or camera rays.
    """
    if config.multiview or config.plucker_channels:
        kind = "several views" if config.multiview else "camera rays"
        raise InputError(f"diffusers' {CLASS_NAME} has no form with {kind}; convert to a .pt file or a run folder")
    return {
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
        "extra_pos_embed_type": "learnable" if config.position_embedding == "learnable" else None,
    }


def config_from_diffusers(folder: Path) -> DiTConfig:
    """The network in a folder of diffusers' class, from its ``config.json``.

    Raises:
        InputError: another class, or a form of it that Cosmos 1.0 and 2.0 do not have.
    """
    path = transformer_folder(folder) / "config.json"
    values = read_object(path)
    try:
        return _network_of(values, path)
    except InputError as error:
        raise InputError(str(error) if str(path) in str(error) else f"{path}: {error}") from error
    except (TypeError, ValueError, LookupError) as error:
        raise InputError(f"{path}: not the settings of a {CLASS_NAME} ({type(error).__name__}: {error})") from error


def _network_of(values: dict[str, Any], path: Path) -> DiTConfig:
    if values.get("_class_name") != CLASS_NAME:
        raise InputError(f"{path}: found the class {values.get('_class_name')!r}, expected {CLASS_NAME}")
    learnable = values.get("extra_pos_embed_type") == "learnable"
    out_channels = values.get("out_channels", 16)
    extra = values.get("in_channels", 16) - out_channels
    expected = {"mlp_ratio": 4.0, "concat_padding_mask": True, "use_crossattn_projection": False,
                "img_context_dim_in": None}  # fmt: skip
    other = {key: values[key] for key, value in expected.items() if key in values and values[key] != value}
    patch = list(values.get("patch_size", (1, 2, 2)))
    if other or extra not in (0, 1) or patch[0] != 1 or patch[1] != patch[2]:
        raise InputError(f"{path}: not a network of Cosmos 1.0 or 2.0 ({other or values})")
    heads, width = values["num_attention_heads"], values["attention_head_dim"]
    if type(heads) is not int or type(width) is not int:
        raise InputError(f"{path}: num_attention_heads and attention_head_dim have to be whole numbers")
    max_frames, max_height, max_width = values.get("max_size", (128, 240, 240))
    rope = values.get("rope_scale", (2.0, 1.0, 1.0))
    return DiTConfig(
        family="predict1" if learnable else "predict2",
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
        rope_uses_fps=learnable,
        position_embedding="learnable" if learnable else "none",
    )


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
