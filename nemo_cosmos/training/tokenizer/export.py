"""Turn a training checkpoint into a tokenizer folder, TorchScript files or a diffusers folder."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path
from typing import get_args

from nemo_cosmos.choices import TokenizerForm, Verify
from nemo_cosmos.errors import InputError, require_replaceable, require_writable
from nemo_cosmos.models.tokenizer import CosmosTokenizer, save_tokenizer
from nemo_cosmos.models.tokenizer.jit import export_jit
from nemo_cosmos.models.tokenizer.pretrained import module_with_weights
from nemo_cosmos.models.tokenizer.state_dict import infer_config
from nemo_cosmos.models.tokenizer.weights import read_weights
from nemo_cosmos.models.video_tokenizer import VideoTokenizer, open_tokenizer
from nemo_cosmos.models.wan_vae import WanVAE, find_wan_vae
from nemo_cosmos.tiny import located

logger = logging.getLogger(__name__)

FORMATS: tuple[TokenizerForm, ...] = get_args(TokenizerForm)


def open_source(path: Path, *, name: str | None, regular: bool, verify_files: Verify = "auto") -> VideoTokenizer:
    """The tokenizer in a folder or in one weights file.

    Args:
        path: tokenizer folder, Wan's tokenizer.pth, or an iter_*.pt, .safetensors or .jit file.
        name: recorded name of a file's tokenizer; a preset's name also fixes its chunk length.
        regular: the regular instead of the averaged weights, where there are both.
        verify_files: whether the files are compared with their checksums, where they have them.

    Raises:
        InputError: unreadable, or without regular weights where those are asked for.
    """
    path = located(path, "tokenizer")
    if path.is_dir() or find_wan_vae(path) is not None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            return open_tokenizer(path, regular=regular, verify_files=verify_files)
    weights = read_weights(path, regular=regular, verify_files=verify_files)
    if regular and weights.averaged:
        raise InputError(f"{path} holds averaged weights alone: leave out --reg")
    config = infer_config(weights.state, name=name or path.stem)
    module = module_with_weights(config, weights.state)
    logger.info("tokenizer %s: %s", config.name, weights)
    return CosmosTokenizer(module)


def export(
    source: Path,
    target: Path,
    *,
    form: TokenizerForm,
    name: str | None = None,
    regular: bool = False,
    verify_files: Verify = "auto",
) -> list[Path]:
    """Write ``source`` in one of :data:`FORMATS`; returns what was written.

    ``jit`` writes encoder.jit, decoder.jit and autoencoder.jit into the folder ``target``; ``folder`` writes a Wan VAE
    as its original tokenizer.pth.
    """
    if form not in FORMATS:
        raise InputError(f"format {form!r}: expected one of {', '.join(FORMATS)}")
    require_replaceable(target, folder=True)
    if form != "jit" and target.is_dir() and any(target.iterdir()) and not (target / "config.json").is_file():
        raise InputError(f"{target} holds other files and would be replaced: name another folder")
    require_writable(target.parent)
    tokenizer = open_source(source, name=name, regular=regular, verify_files=verify_files)
    if form == "diffusers":
        return [tokenizer.save_diffusers(target)]
    if isinstance(tokenizer, WanVAE):
        if form == "jit":
            raise InputError(f"{source}: a Wan VAE has no TorchScript form; expected --format folder or diffusers")
        return [tokenizer.save_original(target)]
    assert isinstance(tokenizer, CosmosTokenizer)
    if form == "jit":
        target.mkdir(parents=True, exist_ok=True)
        files = {part: target / f"{part}.jit" for part in ("encoder", "decoder", "autoencoder")}
        export_jit(tokenizer.module, files)
        return list(files.values())
    statistics = (tokenizer.mean, tokenizer.std) if tokenizer.has_statistics else (None, None)
    return [save_tokenizer(target, tokenizer.module, name=tokenizer.name, mean=statistics[0], std=statistics[1])]
