"""Whether a run may start in its folder, and what it continues from."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from nemo_cosmos.checkpoint.files import (
    LATEST,
    MODEL_CONFIG,
    iteration_name,
    latest_step,
    saved_steps,
    step_of,
    write_latest,
)
from nemo_cosmos.checkpoint.sources import read_model_config
from nemo_cosmos.checkpoint.store import CheckpointReader
from nemo_cosmos.config import PREVIOUS, TrainConfig, dump_config
from nemo_cosmos.errors import InputError
from nemo_cosmos.lock import TRAINING_LOCK, lock_folder
from nemo_cosmos.models.dit import DiTConfig
from nemo_cosmos.training.damaged import earlier_saves, look_at
from nemo_cosmos.typed import parse_yaml, read_yaml

logger = logging.getLogger(__name__)


def is_first() -> bool:
    """Whether this is the first process of the run."""
    return int(os.environ.get("RANK", "0")) == 0


@contextlib.contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Hold the run folder while the run lasts; its first process holds it for all.

    Raises:
        InputError: another run is going on there.
    """
    if not is_first():
        yield
        return
    folder.mkdir(parents=True, exist_ok=True)
    with lock_folder(folder, TRAINING_LOCK, use="is being trained in"):
        yield


def refuse_untrainable(preset: str, dit: DiTConfig) -> None:
    """Stop before a network is trained whose samples nobody can prepare yet.

    Raises:
        InputError: ``preset`` has several views or camera rays.
    """
    if dit.multiview or dit.plucker_channels:
        raise InputError(
            f"model.preset={preset}: networks of several views or with camera rays cannot be trained yet "
            "(nemo-cosmos experiments lists what is there)"
        )


def checkpoint_to_resume(cfg: TrainConfig, folder: Path) -> Path | None:
    """The newest complete checkpoint of the run, None for a new run.

    With ``resume=previous`` it is the newest that does not look damaged; the tensors are verified later, by all ranks.

    Raises:
        InputError: there are saves, and none may or can be continued from.
    """
    step = latest_step(folder)
    if step is None:
        saves = saved_steps(folder)
        if not saves:
            return None
        if len(saves) > 1:
            raise InputError(
                f"{folder / LATEST} is missing beside saves of steps {', '.join(map(str, saves))}: write "
                f"{iteration_name(saves[-1])}.pt into it to go on from there, or choose another output_dir"
            )
        # A run that is killed within its first save may have put it in place and not named it yet.
        step = saves[0]
        if is_first():
            logger.warning("%s is missing: going on from the only save, of step %d", folder / LATEST, step)
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


def remove_temporaries(folder: Path) -> None:
    """Delete the files that a killed run was writing in its folder. No other run may be at work there."""
    for file in folder.glob(".*.tmp"):
        if file.is_file():
            file.unlink(missing_ok=True)


def name_newest(save: Path) -> None:
    """Write the file that names the newest save, where a kill came before it was written."""
    step = step_of(save.name)
    if step is not None and latest_step(save.parent) is None:
        write_latest(save.parent, step)


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


def tell_changes(before: Path, cfg: Any) -> None:
    """Log each setting that differs from the configuration of the run's last start; the new one takes effect."""
    try:
        saved = read_yaml(before)
    except InputError as error:
        logger.warning("%s: what has changed in the settings is not known (%s)", before, error)
        return
    before_flat = _flat(saved) if isinstance(saved, dict) else {}
    for key, value in _flat(parse_yaml(dump_config(cfg), "the settings")).items():
        if (old := before_flat.get(key, value)) != value:
            logger.warning("%s=%s, it was %s before", key, value, old)


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    out: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, dict) and value:
            out.update(_flat(value, f"{prefix}{key}."))
        else:
            out[prefix + key] = value
    return out
