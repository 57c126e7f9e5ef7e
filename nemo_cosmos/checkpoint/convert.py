"""Weights from one form to another: original ``.pt``, run folder, diffusers folder."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from nemo_cosmos.atomic import write_json
from nemo_cosmos.checkpoint.diffusers import build_transformer, diffusers_config
from nemo_cosmos.checkpoint.distributed import write_distributed
from nemo_cosmos.checkpoint.files import (
    MODEL_CONFIG,
    Weights,
    iteration_name,
    replacing_folder,
    save_tensors,
    write_latest,
)
from nemo_cosmos.checkpoint.lora import MergedWeights, read_adapter
from nemo_cosmos.checkpoint.released import ReleasedTensors
from nemo_cosmos.checkpoint.sources import open_weights
from nemo_cosmos.checksums import Verify, seal_folder
from nemo_cosmos.errors import InputError, require_replaceable
from nemo_cosmos.models.dit import DiTConfig, LoadReport
from nemo_cosmos.models.dit.state_dict import check, entries
from nemo_cosmos.typed import read_object

Form = Literal["pt", "run", "diffusers", "pipeline"]

SCHEDULER = {
    "sigma_min": 0.002, "sigma_max": 80.0, "sigma_data": 0.5, "sigma_schedule": "karras", "num_train_timesteps": 1000,
    "prediction_type": "epsilon", "rho": 7.0, "final_sigmas_type": "sigma_min",
}  # fmt: skip
"""diffusers' EDMEulerScheduler as the released Cosmos 1.0 pipelines have it."""


def convert(
    source: str | Path,
    target: str | Path,
    to: Form,
    *,
    weights: Weights = "ema",
    step: int | None = None,
    preset: str | None = None,
    overrides: Mapping[str, Any] | None = None,
    adapter: str | Path | None = None,
    dtype: torch.dtype | None = None,
    vae: str | Path | None = None,
    text_encoder: str | None = None,
    overwrite: bool = False,
    verify: Verify = "auto",
) -> LoadReport:
    """Write the weights at ``source`` to ``target`` in another form, in one process and without a GPU.

    Args:
        source: anything that :func:`~nemo_cosmos.checkpoint.sources.open_weights` takes; adapters of a run are merged.
        target: a ``.pt`` file, or a folder for the other forms; it appears when complete.
        to: ``pt``: released names; ``run``: a folder that ``model.init_from``, ``generate`` and this function take;
            ``diffusers``: CosmosTransformer3DModel; ``pipeline``: a whole Cosmos 1.0 pipeline of diffusers.
        weights, step: which weights and which save of a run.
        preset, overrides: the network of a file that does not say.
        adapter: a PEFT folder to merge into the weights.
        dtype: of the weights written; None keeps what the source has.
        vae: for a pipeline: a tokenizer folder of this package or of the release, or diffusers' AutoencoderKLCosmos.
        text_encoder: for a pipeline: folder or repository of a T5 encoder and its tokenizer.
        overwrite: replace ``target`` where it exists.
        verify: whether the files read are compared with their checksums, where they have them.

    Raises:
        InputError: the source cannot be read or is not complete, or the target cannot hold it or be written.
    """
    target = Path(target)
    if target.exists() and not overwrite:
        raise InputError(f"{target} exists; choose another target, or allow it to be replaced (--overwrite)")
    require_replaceable(target, folder=to != "pt")
    if (to == "pipeline") != (vae is not None and text_encoder is not None):
        raise InputError("a pipeline is made of the network, --vae and --text-encoder: give both with --to pipeline")
    found = open_weights(source, weights=weights, step=step, verify_files=verify)
    config = found.require_config(preset, **(overrides or {}))
    if to in ("diffusers", "pipeline"):
        diffusers_config(config)
    state = found.state
    if adapter is not None:
        state = MergedWeights(config, state, *read_adapter(adapter, verify_files=verify))
    report = check(config, state)
    target.parent.mkdir(parents=True, exist_ok=True)
    tensors = ReleasedTensors(config, state, dtype=dtype)
    if to == "pt":
        save_tensors(target, tensors, description="writing")
    elif to == "run":
        _write_run(target, config, tensors)
    else:
        with replacing_folder(target) as folder:
            if to == "diffusers":
                build_transformer(config, tensors).save_pretrained(folder)
                seal_folder(folder)
            else:
                assert vae is not None and text_encoder is not None
                _write_pipeline(folder, config, tensors, Path(vae), text_encoder)
                for part in folder.iterdir():
                    if part.is_dir():
                        seal_folder(part)
    return report


def _write_run(target: Path, config: DiTConfig, tensors: Mapping[str, Tensor]) -> None:
    network = {
        entry.name: entry.fuse([tensors[f"net.{name}"] for name in entry.originals]) for entry in entries(config)
    }
    logvar = {name.removeprefix("logvar."): t for name, t in tensors.items() if name.startswith("logvar.")}
    with replacing_folder(target) as temporary:
        folder = temporary / "checkpoints"
        folder.mkdir()
        write_json(folder / MODEL_CONFIG, config.to_dict(), indent=2)
        write_distributed(folder / iteration_name(0), network, logvar)
        write_latest(folder, 0)


def _write_pipeline(
    folder: Path, config: DiTConfig, tensors: Mapping[str, Tensor], vae: Path, text_encoder: str
) -> None:
    import diffusers
    from diffusers import EDMEulerScheduler

    if config.family != "predict1":
        raise InputError("only the pipelines of Cosmos 1.0 (Predict1) can be written; convert with --to diffusers")
    _write_vae(vae, folder / "vae", config)
    classes = _write_text_encoder(text_encoder, folder, config)
    EDMEulerScheduler(**SCHEDULER).save_pretrained(folder / "scheduler")
    build_transformer(config, tensors).save_pretrained(folder / "transformer")
    index = {
        "_class_name": "CosmosVideoToWorldPipeline" if config.condition_mask else "CosmosTextToWorldPipeline",
        "_diffusers_version": diffusers.__version__,
        "safety_checker": [None, None],
        "scheduler": ["diffusers", "EDMEulerScheduler"],
        "text_encoder": ["transformers", classes[0]],
        "tokenizer": ["transformers", classes[1]],
        "transformer": ["diffusers", "CosmosTransformer3DModel"],
        "vae": ["diffusers", "AutoencoderKLCosmos"],
    }
    write_json(folder / "model_index.json", index, indent=2)


def _write_vae(source: Path, target: Path, config: DiTConfig) -> None:
    from nemo_cosmos.models.tokenizer import CosmosTokenizer
    from nemo_cosmos.models.video_tokenizer import open_tokenizer

    settings = source / "config.json"
    if settings.exists() and read_object(settings).get("_class_name") == "AutoencoderKLCosmos":
        shutil.copytree(source, target)
        return
    tokenizer = open_tokenizer(source)
    if not isinstance(tokenizer, CosmosTokenizer):
        raise InputError(f"{source}: {tokenizer.name}; a pipeline of Predict1 takes a Cosmos-Tokenize1 tokenizer")
    if tokenizer.latent_channels != config.in_channels:
        raise InputError(
            f"{source}: latents of {tokenizer.latent_channels} channels, the network takes {config.in_channels}"
        )
    tokenizer.save_diffusers(target)


def _write_text_encoder(source: str, folder: Path, config: DiTConfig) -> tuple[str, str]:
    """Saves encoder and tokenizer; gives the names of their classes."""
    from transformers import AutoTokenizer, T5EncoderModel

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
