"""What a tokenizer training continues from, compared with its configuration before anything is built."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nemo_cosmos.config import PREVIOUS
from nemo_cosmos.errors import InputError
from nemo_cosmos.models.tokenizer import TokenizerModule
from nemo_cosmos.models.tokenizer.config import TokenizerConfig
from nemo_cosmos.models.tokenizer.state_dict import compare, infer_config, split_weights
from nemo_cosmos.models.torch_files import Parts
from nemo_cosmos.training.tokenizer import checkpoint as files
from nemo_cosmos.training.tokenizer.adversarial import PatchDiscriminator3D
from nemo_cosmos.training.tokenizer.config import TokenizerTrainConfig

_NOT_IN_WEIGHTS = ("name", "dropout", "chunk_frames", "in_channels", "out_channels")
"""Settings of a network that its tensors do not show; they may change."""


@dataclass(frozen=True)
class Save:
    """A checkpoint of this trainer.

    Attributes:
        content: as it was saved.
        weights: regular and averaged, under released names.
        passed_over: newer saves that are damaged.
        of_another_run: it is what ``model.load_training_state`` starts a new run from.
    """

    path: Path
    content: dict[str, Any]
    weights: Parts
    of_another_run: bool
    passed_over: tuple[Path, ...] = ()

    @property
    def step(self) -> int:
        """Optimizer steps done."""
        return int(self.content["iteration"])


def open_save(config: TokenizerTrainConfig) -> Save | None:
    """What the run continues from; None for a new run.

    Raises:
        InputError: there are saves and none may be continued from, or the network, the average or the discriminator
            is not the one of the save.
    """
    folder = Path(config.output_dir) / "checkpoints"
    path, passed_over = files.save_to_resume(
        folder,
        config.checkpoint.verify,  # type: ignore[arg-type]
        previous=config.resume == PREVIOUS,
    )
    if path is not None and not config.resume:
        raise InputError(f"{folder} already holds {path.name}: resume it, or choose another output_dir")
    of_another_run = path is None
    if path is None:
        if not config.model.load_training_state:
            return None
        if config.model.init_from is None or not Path(config.model.init_from).is_file():
            raise InputError("model.load_training_state needs model.init_from to be an iter_*.pt file")
        path = Path(config.model.init_from)
    content = files.read_checkpoint(path)
    save = Save(path, content, split_weights(content, str(path)), of_another_run, tuple(passed_over))
    _refuse_other_network(save, TokenizerConfig.preset(config.model.preset, **config.model.overrides))
    if not of_another_run:
        # An average can begin at any time; what was there would be lost without a word.
        _refuse_end(path, "ema.enabled", bool(save.weights.averaged), config.ema.enabled)
        _refuse_end(path, "loss.adversarial.enabled", "discriminator" in content, config.loss.adversarial.enabled)
    if config.loss.adversarial.enabled:
        _refuse_other_discriminator(save, config)
    return save


def _refuse_other_network(save: Save, network: TokenizerConfig) -> None:
    with torch.device("meta"):
        report = compare(TokenizerModule(network).state_dict(), save.weights.regular)
    found: dict[str, Any] = save.content.get("config") or {}
    if report.complete and not found:
        return  # Saves of earlier versions do not say what they were made with.
    found = found or infer_config(save.weights.regular, name=network.name).as_dict()
    differing = [
        f"{key}={found[key]}, the configuration says {value}"
        for key, value in network.as_dict().items()
        if key not in _NOT_IN_WEIGHTS and found.get(key, value) != value
    ]
    if report.complete and not differing:
        return
    raise InputError(
        f"{save.path}: its weights do not fit the network, it was saved with {'; '.join(differing) or report}: keep "
        "the model settings of the run, or choose another output_dir"
    )


def _refuse_end(path: Path, key: str, saved: bool, wanted: bool) -> None:
    if saved and not wanted:
        raise InputError(
            f"{path} was saved with {key}=true, the configuration says false: keep it, or start another output_dir "
            "with model.init_from of this one"
        )


def _refuse_other_discriminator(save: Save, config: TokenizerTrainConfig) -> None:
    adversarial = config.loss.adversarial
    saved = save.content.get("discriminator")
    if saved is None:
        raise InputError(f"{save.path} has no discriminator; continue it with loss.adversarial.enabled=false")
    with torch.device("meta"):
        own = PatchDiscriminator3D(adversarial.channels, adversarial.num_layers).state_dict()
    shapes = {key: value.shape for key, value in saved.items() if isinstance(value, Tensor)}
    if shapes != {key: value.shape for key, value in own.items()}:
        raise InputError(
            f"{save.path}: its discriminator does not fit loss.adversarial.channels={adversarial.channels} and "
            f"num_layers={adversarial.num_layers}: keep those of the run, or choose another output_dir"
        )
