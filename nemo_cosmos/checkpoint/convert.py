"""Weights from one form to another: original ``.pt``, run folder, diffusers folder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from nemo_cosmos.atomic import write_json
from nemo_cosmos.checkpoint.adapters import Adapters, choices, with_adapters
from nemo_cosmos.checkpoint.diffusers import build_transformer, diffusers_config
from nemo_cosmos.checkpoint.distributed import write_distributed
from nemo_cosmos.checkpoint.files import (
    MODEL_CONFIG,
    Weights,
    iteration_name,
    replacing_folder,
    save_tensors,
    step_of,
    write_latest,
)
from nemo_cosmos.checkpoint.pipelines import write_pipeline
from nemo_cosmos.checkpoint.released import JointTensors, ReleasedTensors
from nemo_cosmos.checkpoint.sources import open_weights
from nemo_cosmos.checksums import Verify, seal_folder
from nemo_cosmos.choices import WeightsWritten
from nemo_cosmos.errors import InputError, require_replaceable
from nemo_cosmos.models.dit import DiTConfig, LoadReport
from nemo_cosmos.models.dit.growth import grown_weights
from nemo_cosmos.models.dit.parameters import parameters
from nemo_cosmos.models.dit.state_dict import check

Form = Literal["pt", "run", "diffusers", "pipeline"]


def convert(
    source: str | Path,
    target: str | Path,
    to: Form,
    *,
    weights: WeightsWritten = "ema",
    step: int | None = None,
    preset: str | None = None,
    overrides: Mapping[str, Any] | None = None,
    adapter: Adapters = None,
    lora_alpha: float | None = None,
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
            ``diffusers``: CosmosTransformer3DModel; ``pipeline``: a whole Cosmos 1.0 or 2.0 pipeline of diffusers.
        weights, step: which weights and which save of a run; "both", for a ``.pt`` file: regular ones under ``net.``
            and averaged ones under ``net_ema.``.
        preset, overrides: the network of a file that does not say; one with camera rays takes weights without them,
            too, whose patch embedding gets zero columns.
        adapter: adapters to merge into the weights: a PEFT folder or a file of them, or several, each with how much
            of it is added.
        lora_alpha: of adapters whose files do not say it, those in the file of the weights included.
        dtype: of the weights written; None keeps what the source has.
        vae: for a pipeline: a tokenizer folder of this package or of the release, or diffusers' AutoencoderKLCosmos;
            for Predict2 a folder of diffusers' AutoencoderKLWan.
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
    if weights == "both" and to != "pt":
        raise InputError(f"both kinds of weights fit into one .pt file, not into --to {to}: choose ema or reg")
    parts: list[ReleasedTensors] = []
    kinds: tuple[Weights, ...] = ("reg", "ema") if weights == "both" else (weights,)
    for kind in kinds:
        found = open_weights(
            source, weights=kind, step=step, verify_files=verify, lora_alpha=lora_alpha, exactly=weights == "both"
        )
        config = found.require_config(preset, **(overrides or {}))
        if to in ("diffusers", "pipeline"):
            diffusers_config(config)
        state = grown_weights(config, found.state)
        state = with_adapters(
            config, state, choices(adapter), lora_alpha=lora_alpha, weights=kind, verify_files=verify
        )
        report = check(config, state)
        parts.append(ReleasedTensors(config, state, dtype=dtype))
    target.parent.mkdir(parents=True, exist_ok=True)
    tensors = parts[0]
    if to == "pt":
        save_tensors(target, JointTensors(*parts) if weights == "both" else tensors, description="writing")
    elif to == "run":
        _write_run(target, config, tensors)
    else:
        with replacing_folder(target) as folder:
            if to == "diffusers":
                build_transformer(config, tensors).save_pretrained(folder)
                seal_folder(folder)
            else:
                assert vae is not None and text_encoder is not None
                write_pipeline(folder, config, tensors, Path(vae), text_encoder, verify_files=verify)
                for part in folder.iterdir():
                    if part.is_dir():
                        seal_folder(part)
    return report


def _write_run(target: Path, config: DiTConfig, tensors: Mapping[str, Tensor]) -> None:
    network = {
        parameter.name: parameter.fuse([tensors[f"net.{name}"] for name in parameter.released])
        for parameter in parameters(config)
    }
    logvar = {name.removeprefix("logvar."): t for name, t in tensors.items() if name.startswith("logvar.")}
    with replacing_folder(target) as temporary:
        folder = temporary / "checkpoints"
        folder.mkdir()
        write_json(folder / MODEL_CONFIG, config.to_dict(), indent=2)
        write_distributed(folder / iteration_name(0), network, logvar)
        write_latest(folder, 0)


def write_released_files(save: Path, *, overwrite: bool = False) -> list[Path]:
    """The three ``.pt`` files that a released network begins as, of one distributed checkpoint.

    Args:
        save: ``iter_…`` of a run with an average.
        overwrite: replace files that exist.

    Returns:
        ``SAVE/model_ema_reg.pt``: both kinds of weights; ``SAVE/model_ema_fp32.pt``: the average as ``net.``;
        ``SAVE.pt``: the same in bfloat16.

    Raises:
        InputError: as :func:`convert`; nothing is written where a file exists that may not be replaced.
    """
    save = Path(save)
    if step_of(save.name) is None or not save.is_dir():
        raise InputError(f"{save}: expected one distributed checkpoint of a run, the folder iter_NUMBER")
    files: dict[Path, tuple[WeightsWritten, torch.dtype | None]] = {
        save / "model_ema_reg.pt": ("both", None),
        save / "model_ema_fp32.pt": ("ema", torch.float32),
        save.with_name(f"{save.name}.pt"): ("ema", torch.bfloat16),
    }
    if there := [file for file in files if file.exists() and not overwrite]:
        raise InputError(f"{there[0]} exists; move it away, or allow it to be replaced (--overwrite)")
    for file, (weights, dtype) in files.items():
        convert(save, file, "pt", weights=weights, dtype=dtype, overwrite=overwrite)
    return list(files)
