"""The weights that a run starts from, looked at before anything is built or written."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from nemo_cosmos.checkpoint.adapters import with_adapters
from nemo_cosmos.checkpoint.sources import open_weights
from nemo_cosmos.config import TrainConfig
from nemo_cosmos.errors import InputError
from nemo_cosmos.models.dit import DiTConfig
from nemo_cosmos.models.dit.growth import grown_weights
from nemo_cosmos.models.dit.state_dict import check
from nemo_cosmos.models.dit.view_growth import view_table_rows, with_more_views


def check_initial_weights(cfg: TrainConfig, dit: DiTConfig) -> None:
    """Compare the names and shapes of ``model.init_from`` with the network, and sizes of files; no tensor is read.

    Raises:
        InputError: nothing loadable is there, or, unless ``model.strict_init`` is off, it is another network's.
    """
    if cfg.model.init_from is None:
        if cfg.model.init_lora_alpha is not None:
            raise InputError("model.init_lora_alpha has no effect without model.init_from")
        if cfg.model.init_new_views:
            raise InputError("model.init_new_views has no effect without model.init_from: all views start anew")
        return
    try:
        alpha = cfg.model.init_lora_alpha
        state = open_weights(cfg.model.init_from, weights="reg", verify_files="size", lora_alpha=alpha).state
        with_adapters(dit, state, (), lora_alpha=alpha)
        _check_views(cfg, dit, state)
        grown = grown_weights(dit, state)
        check(dit, as_network(cfg, dit, state), strict=must_be_whole(cfg))
    except InputError as error:
        raise InputError(f"model.init_from={cfg.model.init_from}: {error}") from error
    if grown is not state and cfg.lora.enabled and "patch_embedding" not in cfg.lora.also_train:
        raise InputError(
            f"model.init_from={cfg.model.init_from} has no columns for camera rays: they would be zero and "
            "frozen, and the rays without effect; set lora.also_train=[patch_embedding]"
        )


def as_network(cfg: TrainConfig, dit: DiTConfig, state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """The weights of ``model.init_from`` in the network's shapes: zero columns for camera rays that they do not know,
    and new views where the configuration says so."""
    grown = grown_weights(dit, state)
    return with_more_views(dit, grown, cfg.seed) if cfg.model.init_new_views else grown


def _check_views(cfg: TrainConfig, dit: DiTConfig, state: Mapping[str, Tensor]) -> None:
    """InputError where the weights know another number of views than the network and nothing says what then."""
    found = view_table_rows(dit, state)
    rows = None if found is None else found[1]
    if not cfg.model.init_new_views:
        if rows is not None and rows < dit.num_views:
            raise InputError(
                f"it has {rows} views, the network {dit.num_views}: model.init_new_views=true takes them as the first "
                "and starts the others anew"
            )
        if rows is not None and rows > dit.num_views:
            raise InputError(
                f"it has {rows} views, the network {dit.num_views}: set model.overrides.num_views={rows}; samples may "
                "show fewer"
            )
        return
    if rows is None or rows >= dit.num_views:
        raise InputError(
            f"it has {'no' if rows is None else rows} views and the network {dit.num_views}: "
            "model.init_new_views=true has no effect; remove it, or set model.overrides.num_views to more"
        )
    if cfg.lora.enabled:
        raise InputError(
            "model.init_new_views=true with lora.enabled=true: the new views would stay random beside frozen weights; "
            "train all weights first"
        )


def must_be_whole(cfg: TrainConfig) -> bool:
    """Whether ``model.init_from`` must fit the network exactly; adapters are trained beside a whole base only."""
    return cfg.model.strict_init or cfg.lora.enabled
