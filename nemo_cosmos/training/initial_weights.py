"""The weights that a run starts from, looked at before anything is built or written."""

from __future__ import annotations

from nemo_cosmos.checkpoint.adapters import with_adapters
from nemo_cosmos.checkpoint.sources import open_weights
from nemo_cosmos.config import TrainConfig
from nemo_cosmos.errors import InputError
from nemo_cosmos.models.dit import DiTConfig
from nemo_cosmos.models.dit.growth import grown_weights
from nemo_cosmos.models.dit.state_dict import check


def check_initial_weights(cfg: TrainConfig, dit: DiTConfig) -> None:
    """Compare the names and shapes of ``model.init_from`` with the network, and sizes of files; no tensor is read.

    Raises:
        InputError: nothing loadable is there, or, unless ``model.strict_init`` is off, it is another network's.
    """
    if cfg.model.init_from is None:
        if cfg.model.init_lora_alpha is not None:
            raise InputError("model.init_lora_alpha has no effect without model.init_from")
        return
    try:
        alpha = cfg.model.init_lora_alpha
        state = open_weights(cfg.model.init_from, weights="reg", verify_files="size", lora_alpha=alpha).state
        with_adapters(dit, state, (), lora_alpha=alpha)
        grown = grown_weights(dit, state)
        check(dit, grown, strict=must_be_whole(cfg))
    except InputError as error:
        raise InputError(f"model.init_from={cfg.model.init_from}: {error}") from error
    if grown is not state and cfg.lora.enabled and "patch_embedding" not in cfg.lora.also_train:
        raise InputError(
            f"model.init_from={cfg.model.init_from} has no columns for camera rays: they would be zero and "
            "frozen, and the rays without effect; set lora.also_train=[patch_embedding]"
        )


def must_be_whole(cfg: TrainConfig) -> bool:
    """Whether ``model.init_from`` must fit the network exactly; adapters are trained beside a whole base only."""
    return cfg.model.strict_init or cfg.lora.enabled
