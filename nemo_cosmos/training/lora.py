"""When a run with adapters may start."""

from __future__ import annotations

from pathlib import Path

from nemo_cosmos.checkpoint.lora import read_spec
from nemo_cosmos.config import TrainConfig
from nemo_cosmos.errors import InputError
from nemo_cosmos.models.dit.lora import LoraSpec


def adapters_to_train(cfg: TrainConfig, folder: Path, *, resuming: bool) -> LoraSpec | None:
    """The adapters of a run, None where every weight is trained.

    Args:
        folder: the run's checkpoints folder.
        resuming: whether the run continues from a save there.

    Raises:
        InputError: there is no base to adapt, or the saves were made with other adapters.
    """
    lora = cfg.lora
    spec = LoraSpec(lora.rank, lora.alpha, tuple(lora.targets), tuple(lora.also_train)) if lora.enabled else None
    if resuming:
        saved = read_spec(folder)
        if saved != spec:
            raise InputError(
                f"{folder} was saved with {saved or 'all weights trained'}, the configuration says "
                f"{spec or 'lora.enabled=false'}; keep the lora settings of the run, or choose another output_dir"
            )
    elif spec is not None and cfg.model.init_from is None:
        raise InputError(
            "lora.enabled=true with model.init_from=null: adapters are trained beside frozen weights, which would be "
            "random; give model.init_from a released .pt file, a run folder or a diffusers folder"
        )
    return spec
