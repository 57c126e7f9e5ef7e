"""Whether a run may start in its folder, and what it continues from."""

from __future__ import annotations

import logging
from dataclasses import asdict
from pathlib import Path

from nemo_cosmos.checkpoint.files import MODEL_CONFIG, saved_steps
from nemo_cosmos.checkpoint.sources import read_model_config
from nemo_cosmos.checkpoint.store import CheckpointReader
from nemo_cosmos.config import PREVIOUS, TrainConfig
from nemo_cosmos.errors import InputError
from nemo_cosmos.models.dit import DiTConfig
from nemo_cosmos.run_folder import LATEST, is_first, iteration_name, newest_save
from nemo_cosmos.training.damaged import earlier_saves, look_at

logger = logging.getLogger(__name__)


def checkpoint_to_resume(cfg: TrainConfig, folder: Path) -> Path | None:
    """The newest complete checkpoint of the run, None for a new run.

    With ``resume=previous`` it is the newest that does not look damaged; the tensors are verified later, by all ranks.

    Raises:
        InputError: there are saves, and none may or can be continued from.
    """
    step = newest_save(folder, saved_steps(folder))
    if step is None:
        return None
    if not cfg.resume:
        raise InputError(
            f"{folder} holds a checkpoint of step {step} and resume=false; set resume=true, or another output_dir"
        )
    path = folder / iteration_name(step)
    previous = cfg.resume == PREVIOUS
    if not path.is_dir() and not previous:
        raise InputError(f"{path}: named by {LATEST} but not there; write one of {saved_steps(folder)} into that file")
    for candidate in [path, *earlier_saves(path)] if previous else [path]:
        try:
            look_at(candidate, cfg.checkpoint.verify)  # type: ignore[arg-type]
            return candidate
        except InputError as error:
            problem = error
            if previous and is_first():
                logger.warning("%s", error)
    raise problem


def refuse_other_network(cfg: TrainConfig, dit: DiTConfig, save: Path) -> None:
    """Compare what cannot change in a run with what the save holds.

    Raises:
        InputError: another network, or the average was turned on or off.
    """
    if (save.parent / MODEL_CONFIG).is_file():
        saved, now = asdict(read_model_config(save.parent)), asdict(dit)
        differing = [f"{key}={saved[key]}, the configuration says {now[key]}" for key in now if saved[key] != now[key]]
        if differing:
            raise InputError(
                f"{save} was saved with {'; '.join(differing)}: keep the model settings of the run, or choose another "
                "output_dir"
            )
    has_average = CheckpointReader(save).has_ema
    if has_average != cfg.ema.enabled:
        raise InputError(
            f"{save} was saved with ema.enabled={str(has_average).lower()}, the configuration says "
            f"{str(cfg.ema.enabled).lower()}: keep it, or start another output_dir with model.init_from of this one"
        )
