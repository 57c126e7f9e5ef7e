"""Whole pipelines of diffusers: the network, its video tokenizer, text encoder and sampler in one folder."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError, safe_open
from torch import Tensor

from nemo_cosmos.atomic import write_json
from nemo_cosmos.checkpoint.diffusers import CLASS_NAME, PIPELINE_INDEX, WEIGHTS, build_transformer, diffusers_form
from nemo_cosmos.checksums import Verify, verify
from nemo_cosmos.errors import InputError
from nemo_cosmos.models.dit import DiTConfig
from nemo_cosmos.tiny import located
from nemo_cosmos.typed import read_object

LATENT_CHANNELS = {"AutoencoderKLCosmos": "latent_channels", "AutoencoderKLWan": "z_dim"}
"""Classes of diffusers' video tokenizers -> the setting that has the channels of their latents."""


def write_pipeline(
    folder: Path,
    config: DiTConfig,
    tensors: Mapping[str, Tensor],
    vae: Path,
    text_encoder: str,
    *,
    verify_files: Verify = "auto",
) -> None:
    """The parts of a pipeline of the network's family, and the index that names their classes, into ``folder``.

    Args:
        tensors: released names, with or without prefix.
        vae: folder of the class that the family has, which is copied, or of a tokenizer that is exported to it.
        text_encoder: folder or repository of a T5 encoder and its tokenizer.
        verify_files: whether the files of ``vae`` are compared with their checksums, where they have them.

    Raises:
        InputError: a part is missing, damaged, or does not fit the network.
    """
    import diffusers

    form = diffusers_form(config)
    _write_vae(vae, folder / "vae", config, form.vae, verify_files)
    encoder, tokenizer = _write_text_encoder(text_encoder, folder, config)
    scheduler = getattr(diffusers, form.scheduler)()
    scheduler.register_to_config(**form.scheduler_settings)
    scheduler.save_pretrained(folder / "scheduler")
    build_transformer(config, tensors).save_pretrained(folder / "transformer")
    index = {
        "_class_name": form.pipelines[config.condition_mask],
        "_diffusers_version": diffusers.__version__,
        "safety_checker": [None, None],
        "scheduler": ["diffusers", form.scheduler],
        "text_encoder": ["transformers", encoder],
        "tokenizer": ["transformers", tokenizer],
        "transformer": ["diffusers", CLASS_NAME],
        "vae": ["diffusers", form.vae],
    }
    write_json(folder / PIPELINE_INDEX, index, indent=2)


def _write_vae(source: Path, target: Path, config: DiTConfig, class_name: str, verify_files: Verify) -> None:
    settings = source / "config.json"
    values = read_object(settings) if settings.is_file() else {}
    found = values.get("_class_name")
    if found == class_name:
        _check_channels(source, values.get(LATENT_CHANNELS[class_name], config.in_channels), config)
        _check_weights(source, verify_files)
        shutil.copytree(source, target)
    elif found is None:
        _export_tokenizer(source, target, config, class_name)
    else:
        raise InputError(f"{source}: a folder of {str(found)[:80]}; {_needed(config, class_name)}")


def _needed(config: DiTConfig, class_name: str) -> str:
    return (
        f"a pipeline of {config.family} needs a folder of {class_name}, such as the folder vae of one that has it, or "
        "a tokenizer that can be written as that class"
    )


def _check_channels(source: Path, found: int, config: DiTConfig) -> None:
    if found != config.in_channels:
        raise InputError(f"{source}: latents of {found} channels, the network takes {config.in_channels}")


def _check_weights(source: Path, verify_files: Verify) -> None:
    verify(source, verify_files)
    files = sorted(source.glob(f"{WEIGHTS}*.safetensors"))
    if not files:
        raise InputError(f"{source}: no {WEIGHTS}.safetensors in it")
    for file in files:
        try:
            with safe_open(file, framework="pt"):
                pass
        except (OSError, SafetensorError) as error:
            raise InputError(f"{file}: not a readable safetensors file ({error})") from error


def _export_tokenizer(source: Path, target: Path, config: DiTConfig, class_name: str) -> None:
    from nemo_cosmos.models.video_tokenizer import open_tokenizer

    try:
        tokenizer = open_tokenizer(source)
    except InputError as error:
        where = "" if str(source) in str(error) else f"{source}: "
        raise InputError(f"{where}{error}; {_needed(config, class_name)}") from error
    if tokenizer.diffusers_class != class_name:
        raise InputError(f"{source}: {tokenizer.name}; {_needed(config, class_name)}")
    _check_channels(source, tokenizer.latent_channels, config)
    tokenizer.save_diffusers(target)


def _write_text_encoder(source: str, folder: Path, config: DiTConfig) -> tuple[str, str]:
    """Saves encoder and tokenizer; gives the names of their classes."""
    from transformers import AutoTokenizer, T5EncoderModel

    source = str(located(source, "text_encoder"))
    try:
        encoder = T5EncoderModel.from_pretrained(source, torch_dtype="auto")
        tokenizer = AutoTokenizer.from_pretrained(source)
    except (OSError, ValueError) as error:
        raise InputError(f"{source}: no T5 encoder with a tokenizer ({error})") from error
    if encoder.config.d_model != config.text_width:
        raise InputError(f"{source}: text of width {encoder.config.d_model}, the network takes {config.text_width}")
    encoder.save_pretrained(folder / "text_encoder")
    tokenizer.save_pretrained(folder / "tokenizer")
    return type(encoder).__name__, type(tokenizer).__name__
