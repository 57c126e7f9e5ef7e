"""Weights with released names from whatever holds them: a file, a run, a diffusers folder."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nemo_cosmos.checkpoint.adapters import PEFT_CONFIG
from nemo_cosmos.checkpoint.diffusers import (
    DiffusersWeights,
    config_from_diffusers,
    is_diffusers_folder,
    transformer_folder,
)
from nemo_cosmos.checkpoint.distributed import LOGVAR, DistributedCheckpoint
from nemo_cosmos.checkpoint.files import (
    JOINT,
    MODEL_CONFIG,
    Weights,
    iteration_name,
    joint_file,
    latest_step,
    read_tensors,
    saved_steps,
    step_of,
    weights_file,
)
from nemo_cosmos.checkpoint.lora import MergedWeights, read_spec
from nemo_cosmos.checkpoint.merging import ADAPTERS_ALONE
from nemo_cosmos.checkpoint.store import BUFFERS, read_common, tensors_folder
from nemo_cosmos.checksums import Verify, verify
from nemo_cosmos.errors import InputError
from nemo_cosmos.models.dit import DiTConfig
from nemo_cosmos.models.dit.config import PRESETS
from nemo_cosmos.models.dit.lora import LoraSpec, adapter_entries, whole_parameters
from nemo_cosmos.models.dit.parameters import Parameter, parameters
from nemo_cosmos.tiny import located
from nemo_cosmos.typed import read_object

RELEASED_FILE = "model.pt"
"""The weights in the folder of a released network."""


@dataclass(frozen=True)
class WeightSource:
    """Where weights lie, the network they belong to if it is known there, and the tensors, read on demand."""

    path: Path
    config: DiTConfig | None
    state: Mapping[str, Tensor]
    """Released names, with or without the ``net.`` prefix; ``logvar.*`` where the source has it."""
    verified: bool = True
    """False where there are no checksums beside the files."""

    def require_config(self, preset: str | None = None, **overrides: Any) -> DiTConfig:
        """The network: the source's own, or that of ``preset`` for a file that does not say.

        Raises:
            InputError: neither is known.
        """
        if preset is not None:
            return DiTConfig.preset(preset, **overrides)
        if self.config is None:
            raise InputError(
                f"{self.path}: say which network it holds (preset=...), there is no {MODEL_CONFIG} beside it"
            )
        return self.config


def open_weights(
    path: str | Path,
    *,
    weights: Weights = "ema",
    step: int | None = None,
    verify_files: Verify = "auto",
    lora_alpha: float | None = None,
    exactly: bool = False,
) -> WeightSource:
    """Find the weights at ``path``; big tensors are read when they are asked for.

    Args:
        path: a ``.pt`` file in the original layout, with or without adapters in it, or a released folder with its
            ``model.pt``; a run folder, its ``checkpoints`` or one ``iter_…`` folder in it; a folder of diffusers (a
            pipeline or its transformer); or the name of a packaged model. A run with adapters gives merged weights.
        weights: which weights of a run, or of a file that holds both; others are taken as they are.
        step: which save of a run; by default the newest.
        verify_files: whether the files are compared with their checksums, where they have them.
        lora_alpha: of adapters in a file; None: their rank.
        exactly: refuse a file or folder without weights of this kind, instead of taking those that it has.

    Raises:
        InputError: nothing to load there, or a file of it is damaged.
    """
    path = weights_path(path)
    if path.is_file():
        verified = verify(path, verify_files)
        known = run_of_file(path)
        config = released_config(path) if known is None else read_model_config(known)
        tensors = read_tensors(path, weights, lora_alpha=lora_alpha)
        if exactly:
            _require_kind(path, weights, tensors.taken)
        return WeightSource(path, config, tensors, verified)
    if not path.is_dir():
        raise InputError(f"{path}: no such file or folder; expected a .pt file, a run folder or a diffusers folder")
    if is_diffusers_folder(path):
        if exactly:
            _require_kind(path, weights, None)
        verified = verify(transformer_folder(path), verify_files)
        config = config_from_diffusers(path)
        return WeightSource(path, config, DiffusersWeights(path, config), verified)
    if (path / PEFT_CONFIG).is_file():
        raise InputError(f"{path} {ADAPTERS_ALONE}")
    folder = checkpoints_folder(path)
    if step is None:
        step = step_of(path.name) if path != folder and path.parent == folder else latest_step(folder)
    if step is None:
        raise InputError(f"{path}: no checkpoint; expected {folder}/latest_checkpoint.txt of a training run")
    state, verified = _run_state(folder, step, weights, verify_files)
    return WeightSource(path, read_model_config(folder), state, verified)


def _require_kind(path: Path, weights: Weights, taken: str | None) -> None:
    """InputError where a file has weights of the other kind alone; ``taken`` is what was taken of it."""
    averaged = path.name.endswith("_ema_model.pt") or (taken or "").startswith("averaged")
    if weights == "ema" and not averaged:
        raise InputError(f"{path} has no averaged weights (EMA), no net_ema.* in it; take its regular ones")
    if weights == "reg" and averaged:
        raise InputError(f"{path} has averaged weights (EMA) alone; take those")


def weights_path(name: str | Path) -> Path:
    """The path that a model's name or path stands for: of a released folder its ``model.pt``."""
    path = located(name, "network")
    return path / RELEASED_FILE if (path / RELEASED_FILE).is_file() else path


def released_config(file: Path) -> DiTConfig | None:
    """The network of a ``model.pt`` in a folder that is called as released ones are; None for other files."""
    if file.name != RELEASED_FILE:
        return None
    name = _preset_named(file.absolute().parent.name)
    return DiTConfig.preset(name) if name in PRESETS else None


def preset_of(folder: str) -> str:
    """``Cosmos-Predict1-7B-Video2World`` (with or without ``_post-trained``) -> ``predict1-7b-video2world``, and
    ``…-Sample-AV-Multiview`` -> ``…-multiview``."""
    name = _preset_named(folder)
    if not name.startswith(("predict1-", "predict2-")):
        raise InputError(f"{folder}: the name of the folder of model.pt tells no network; give --preset")
    return name


def _preset_named(folder: str) -> str:
    name = folder.removesuffix("_post-trained").removeprefix("Cosmos-").lower()
    return name.replace("-sample-av-multiview", "-multiview")


def run_of_file(path: Path) -> Path | None:
    """The checkpoints folder that a file was exported to, None for other files."""
    folders = (path.parent, path.parents[1]) if path.parent.name == JOINT else (path.parent,)
    return next((folder for folder in folders if (folder / MODEL_CONFIG).is_file()), None)


def checkpoints_folder(path: Path) -> Path:
    """The folder of a run's saves, from the run folder, itself, or one of its saves."""
    if (path / "checkpoints").is_dir():
        return path / "checkpoints"
    return path.parent if step_of(path.name) is not None else path


def read_model_config(folder: Path) -> DiTConfig:
    """The network of a checkpoints folder."""
    file = folder / MODEL_CONFIG
    if not file.is_file():
        raise InputError(f"{file}: not found; give a run folder that nemo-cosmos train has saved to, or a .pt file")
    try:
        return DiTConfig.from_dict(read_object(file))
    except InputError as error:
        raise InputError(str(error) if str(file) in str(error) else f"{file}: {error}") from error


def _run_state(folder: Path, step: int, weights: Weights, verify_files: Verify) -> tuple[Mapping[str, Tensor], bool]:
    save = folder / iteration_name(step)
    exported = next((f for f in (weights_file(folder, step, weights), joint_file(folder, step)) if f.is_file()), None)
    if exported is not None:
        remedy = f"delete it to take the weights of {save.name}, or give another save"
        verified = verify(exported, verify_files, remedy=remedy)
        tensors = read_tensors(exported, weights)
        if weights == "ema" and exported.parent.name == JOINT and tensors.taken is None:
            raise InputError(f"{exported}: the run kept no average (ema.enabled=false); ask for the reg weights")
        return tensors, verified
    if not save.is_dir():
        raise InputError(f"{save}: no such save; {folder} has {saved_steps(folder) or 'none'}")
    verified = verify(tensors_folder(save), verify_files, remedy=other_saves(folder, step))
    checkpoint = DistributedCheckpoint(save)
    if weights == "ema" and not checkpoint.has_ema:
        raise InputError(f"{save}: the run kept no average (ema.enabled=false); ask for the reg weights")
    config, spec = read_model_config(folder), read_spec(folder)
    state = RunWeights(checkpoint, config, weights)
    if spec is None:
        return state, verified
    return MergedWeights(config, state, spec, run_adapters(checkpoint, config, spec, weights)), verified


def other_saves(folder: Path, step: int) -> str:
    """What to do about a damaged save: the earlier ones."""
    earlier = [iteration_name(other) for other in saved_steps(folder) if other < step]
    return (
        f"give an earlier save ({', '.join(earlier)})" if earlier else "there is no earlier one; take it from a copy"
    )


def run_adapters(
    checkpoint: DistributedCheckpoint, config: DiTConfig, spec: LoraSpec, weights: Weights
) -> dict[str, Tensor]:
    """The adapters of one save: ``transformer_blocks.0.attn1.to_q.lora_A`` and so on."""
    return {
        f"{entry.diffusers}.{factor}": checkpoint[checkpoint.key(f"{entry.ours}.{factor}", weights)]
        for entry in adapter_entries(config, spec)
        for factor in ("lora_A", "lora_B")
    }


def run_whole(
    checkpoint: DistributedCheckpoint, config: DiTConfig, spec: LoraSpec, weights: Weights
) -> dict[str, Tensor]:
    """What was trained whole beside the adapters of one save: ``patch_embed.proj.weight`` and so on."""
    return {
        name: tensor
        for parameter in whole_parameters(config, spec)
        for name, tensor in zip(
            parameter.diffusers or (),
            parameter.separate(checkpoint[checkpoint.key(parameter.name, weights)]),
            strict=True,
        )
    }


class RunWeights(Mapping[str, Tensor]):
    """The network and the log-variance head of a distributed checkpoint under their released names."""

    def __init__(self, checkpoint: DistributedCheckpoint, config: DiTConfig, weights: Weights) -> None:
        self.checkpoint, self.weights = checkpoint, weights
        self._parameters: dict[str, tuple[Parameter, int]] = {
            name: (parameter, i) for parameter in parameters(config) for i, name in enumerate(parameter.released)
        }
        self._logvar = [name.removeprefix(LOGVAR) for name in checkpoint if name.startswith(LOGVAR)]
        self._buffers: dict[str, Tensor] = read_common(checkpoint.folder).get(BUFFERS, {})
        self._last: tuple[str, list[Tensor]] = ("", [])

    def __iter__(self) -> Iterator[str]:
        yield from self._parameters
        yield from self._buffers
        for name in self._logvar:
            yield f"logvar.{name}"

    def __len__(self) -> int:
        return len(self._parameters) + len(self._buffers) + len(self._logvar)

    def shape_of(self, name: str) -> tuple[int, ...]:
        """The shape of a tensor, without reading it."""
        if name in self._buffers:
            return tuple(self._buffers[name].shape)
        found = self.checkpoint.shape_of(self._key(name))
        parts = len(self._parameters[name][0].released) if name in self._parameters else 1
        return (found[0] // parts, *found[1:])

    def dtype_of(self, name: str) -> torch.dtype:
        """The dtype of a tensor, without reading it."""
        return self._buffers[name].dtype if name in self._buffers else self.checkpoint.dtype_of(self._key(name))

    def _key(self, name: str) -> str:
        if name.startswith("logvar."):
            return self.checkpoint.key(name.removeprefix("logvar."), self.weights, prefix=LOGVAR)
        return self.checkpoint.key(self._parameters[name][0].name, self.weights)

    def __getitem__(self, name: str) -> Tensor:
        if name in self._buffers:
            return self._buffers[name]
        if name.startswith("logvar."):
            return self.checkpoint[self._key(name)]
        parameter, part = self._parameters[name]
        # Tensors fused in one are asked for one after another.
        if self._last[0] != parameter.name:
            self._last = (parameter.name, parameter.separate(self.checkpoint[self._key(name)]))
        return self._last[1][part]
