"""Where a model lies: a path here, a model that the package brings along, or a repository on the Hugging Face hub,
which is then downloaded."""

from __future__ import annotations

import os
import re
from dataclasses import replace
from pathlib import Path

from nemo_cosmos.checkpoint.adapters import AdapterChoice, Adapters, choices
from nemo_cosmos.checkpoint.files import MODEL_CONFIG
from nemo_cosmos.checkpoint.sources import preset_of
from nemo_cosmos.download.hub import fetch_to_cache
from nemo_cosmos.errors import InputError
from nemo_cosmos.models.text import DEFAULT_TEXT_ENCODER
from nemo_cosmos.models.wan_vae import DIFFUSERS_FILES, ORIGINAL_FILES, find_wan_vae
from nemo_cosmos.tiny import TINY, TinyPart, located, packaged

NETWORK_FILES = ("model.pt", "config.json", "transformer/*")
"""Of a released network: the original file, or diffusers' transformer."""
WAN_VAE_FILES = (*ORIGINAL_FILES, "vae/config.json", "vae/*.safetensors")
"""Of a repository of Predict2 or Wan: the VAE alone, not the network beside it."""
TOKENIZER_FILES = ("model.pt", "config.json", "mean_std.pt", "*.jit", "model.safetensors", "latent_stats.json",
                   *DIFFUSERS_FILES, *WAN_VAE_FILES)  # fmt: skip
"""Of a repository that is a tokenizer."""
ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors")


def find_network(name: str | Path, preset: str | None) -> tuple[Path, str | None]:
    """What the weights are loaded from, and the preset that they need.

    The ``model.pt`` of a released folder or repository is found in it, and its network told by the name.

    Raises:
        InputError: there is nothing of this name, here or on the hub.
    """
    folder = find_folder(name, NETWORK_FILES, "network")
    file = folder / "model.pt"
    if not file.is_file():
        return folder, preset
    if preset is None and not (folder / MODEL_CONFIG).is_file():
        preset = preset_of((Path(name) if packaged(name) is None else folder).name)
    return file, preset


def find_tokenizer(name: str | Path) -> Path:
    """The path of a tokenizer; a repository is downloaded, of one with a network beside a Wan VAE the VAE alone.

    Raises:
        InputError: there is nothing of this name, here or on the hub.
    """
    folder = find_folder(name, WAN_VAE_FILES, "tokenizer")
    if folder == Path(name) or packaged(name) is not None or (folder.is_dir() and find_wan_vae(folder) is not None):
        return folder
    return find_folder(name, TOKENIZER_FILES)


def tokenizer_for(model: str | Path, tokenizer: str | Path | None) -> Path:
    """The tokenizer that is named, found as :func:`find_tokenizer` does, or the one that belongs to a packaged model.

    Raises:
        InputError: none is named and the model is no packaged one, or there is nothing of this name.
    """
    if tokenizer is None and packaged(model) is None:
        raise InputError(
            f"tokenizer: name the tokenizer of {model}, a folder such as checkpoints/Cosmos-Tokenize1-CV8x8x8-720p; "
            f"only {TINY} brings its own along"
        )
    return find_tokenizer(tokenizer or TINY)


def text_encoder_for(model: str | Path, text_encoder: str | Path | None) -> str:
    """The text encoder that is named, or the one that ``model`` was trained with where it is a released one."""
    if text_encoder is None:
        text_encoder = DEFAULT_TEXT_ENCODER if packaged(model) is None else TINY
    return str(located(text_encoder, "text_encoder"))


def find_folder(name: str | Path, files: tuple[str, ...], part: TinyPart | None = None) -> Path:
    """A path as it is; the folder of a packaged model; the download of a repository's ``files`` where nothing has
    that path and the hub may have it.

    Raises:
        InputError: the package has no such model, or the hub does not give it.
    """
    if (found := packaged(name, part)) is not None:
        return found
    path = Path(name)
    if os.path.lexists(path) or not _may_be_repository(str(name)):
        return path
    try:
        return fetch_to_cache(str(name), files)
    except InputError as error:
        raise InputError(f"{name} does not exist here, and as a repository of the hub: {error}") from error


def _may_be_repository(name: str) -> bool:
    """Whether a name can be ``OWNER/NAME``; below a folder that is here, it is taken for a path."""
    if not re.fullmatch(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", name) or name.endswith(
        (".pt", ".pth", ".safetensors")
    ):
        return False
    return not os.path.isdir(name.split("/")[0])


def find_adapters(named: Adapters) -> tuple[AdapterChoice, ...]:
    """Adapters by path or repository, each with its weight (``PATH:0.7``), as paths.

    Raises:
        InputError: one of them is not there, or a weight is no number.
    """
    found = (replace(choice, path=find_folder(choice.path, ADAPTER_FILES)) for choice in choices(named))
    return tuple(found)
