"""A run folder, of world models and tokenizers alike: its settings, metrics, lock, and which of its saves counts.

::

    config.yaml             the settings of the last start
    starts.jsonl            one object a start: command, versions, source revision, machine
    metrics.jsonl           one object a step
    checkpoints/            saves by step: iter_000000200 (a world model's folder) or iter_000000200.pt (a tokenizer's)
    checkpoints/latest_checkpoint.txt   the newest whole save
"""

from __future__ import annotations

import contextlib
import json
import logging
import math
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from nemo_cosmos.atomic import put_file, write_text
from nemo_cosmos.config import dump_config
from nemo_cosmos.errors import InputError
from nemo_cosmos.lock import TRAINING_LOCK, lock_folder
from nemo_cosmos.precision import short_name
from nemo_cosmos.provenance import describe_start
from nemo_cosmos.typed import LARGEST_YAML, parse_yaml, read_text, read_yaml

logger = logging.getLogger(__name__)

CONFIG = "config.yaml"
METRICS = "metrics.jsonl"
STARTS = "starts.jsonl"
LATEST = "latest_checkpoint.txt"
_ITERATION = re.compile(r"iter_(\d{9})$")


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


def remove_temporaries(folder: Path) -> None:
    """Delete the files that a killed run was writing in its folder. No other run may be at work there."""
    for file in folder.glob(".*.tmp"):
        if file.is_file():
            file.unlink(missing_ok=True)


def write_config(folder: Path, config: Any, *, resuming: bool) -> None:
    """Write and log ``config.yaml`` and a line of ``starts.jsonl``.

    Of a run that goes on, each setting that differs from its last start is logged first.
    """
    text = dump_config(config)
    if resuming:
        tell_changes(folder / CONFIG, config)
    write_text(folder / CONFIG, text)
    start = {**describe_start(), "resuming": resuming}
    append_start(folder / STARTS, start)
    logger.info("settings: %s", json.dumps(parse_yaml(text, "the settings"), ensure_ascii=False))
    logger.info("start: %s", json.dumps(start, ensure_ascii=False))


def append_start(path: Path, start: dict[str, Any]) -> None:
    """Add one line; where a kill cut off the last one, behind a line break."""
    whole = not path.is_file() or path.stat().st_size == 0 or path.read_bytes().endswith(b"\n")
    line = json.dumps(start, ensure_ascii=False) + "\n"
    with path.open("ab") as file:
        file.write((line if whole else "\n" + line).encode("utf-8", "backslashreplace"))


def tell_changes(before: Path, cfg: Any) -> None:
    """Log each setting that differs from the configuration of the run's last start; the new one takes effect."""
    try:
        saved = read_yaml(before)
    except InputError as error:
        logger.warning("%s: what has changed in the settings is not known (%s)", before, error)
        return
    before_flat = _flat(saved) if isinstance(saved, dict) else {}
    for key, value in _flat(parse_yaml(dump_config(cfg), "the settings")).items():
        old = before_flat.get(key, value)
        if (short_name(old) if isinstance(old, str) else old) != value:
            logger.warning("%s=%s, it was %s before", key, value, old)


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    out: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, dict) and value:
            out.update(_flat(value, f"{prefix}{key}."))
        else:
            out[prefix + key] = value
    return out


def iteration_name(step: int) -> str:
    """``iter_000000200``: the distributed checkpoint's folder, and the stem of the exported files beside it."""
    return f"iter_{step:09d}"


def step_of(name: str) -> int | None:
    """The step in the name of a distributed checkpoint's folder, None for any other name."""
    match = _ITERATION.fullmatch(name)
    return int(match.group(1)) if match else None


def latest_step(folder: Path) -> int | None:
    """The step that ``latest_checkpoint.txt`` names, None where there is no such file.

    Raises:
        InputError: the file names no checkpoint.
    """
    path = folder / LATEST
    if not path.exists():
        return None
    text = read_text(path, LARGEST_YAML).strip()
    match = re.fullmatch(r"iter_(\d{9})(\.pt)?", text)
    if match is None:
        raise InputError(f"{path}: found {text[:100]!r}, expected a name such as iter_000000200.pt")
    return int(match.group(1))


def write_latest(folder: Path, step: int) -> None:
    """Name a complete checkpoint as the one to resume from."""
    write_text(folder / LATEST, f"{iteration_name(step)}.pt\n")


def newest_save(folder: Path, saves: Iterable[int]) -> int | None:
    """The step to go on from: the one that is named, or that of the only save; None where there is no save.

    Args:
        folder: of the saves.
        saves: steps of those that are whole.

    Raises:
        InputError: the file that names the newest is damaged, or missing beside several saves.
    """
    step = latest_step(folder)
    if step is not None:
        return step
    steps = sorted(saves)
    if len(steps) > 1:
        raise InputError(
            f"{folder / LATEST} is missing beside saves of steps {', '.join(map(str, steps))}: write "
            f"{iteration_name(steps[-1])}.pt into it to go on from there, or choose another output_dir"
        )
    if steps and is_first():
        # A run that is killed within its first save may have put it in place and not named it yet.
        logger.warning("%s is missing: going on from the only save, of step %d", folder / LATEST, steps[0])
    return steps[0] if steps else None


def old_saves(saves: Iterable[int], newest: int, keep: int) -> list[int]:
    """Steps of the saves to delete: all up to step ``newest`` but the last ``keep`` of them."""
    # Later ones are of a run that was rolled back: they are written anew in time, and do not count.
    return sorted(step for step in saves if step <= newest)[:-keep]


def name_newest(save: Path) -> None:
    """Write the file that names the newest save, where a kill came before it was written."""
    step = step_of(save.stem)
    if step is not None and latest_step(save.parent) is None:
        write_latest(save.parent, step)


def append_metrics(path: Path, record: dict[str, float]) -> None:
    """Add one line; numbers that are not finite become null, for which JSON has no word."""
    with path.open("a") as file:
        file.write(json.dumps({key: finite_or_none(value) for key, value in record.items()}) + "\n")


def finite_or_none(value: float) -> float | None:
    """None instead of what JSON has no word for."""
    return value if math.isfinite(value) else None


def forget_later_steps(path: Path, step: int) -> None:
    """Keep the lines up to a step; a resumed run writes the later ones again.

    What is no line of metrics (cut off by a kill, bytes that are no text, another object) is left out with a warning:
    it never keeps a run from going on.

    Args:
        step: where the run goes on; below 0 keeps nothing.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.unlink(missing_ok=True)
    if not path.is_file():
        return
    damaged = 0
    with path.open("rb") as lines, temporary.open("wb") as kept:
        for line in lines:
            found = metrics_step(line)
            damaged += found is None and bool(line.strip())
            if found is not None and found <= step:
                kept.write(line.strip() + b"\n")
    put_file(temporary, path)
    if damaged:
        logger.warning("%s: %d damaged lines are left out", path, damaged)


def metrics_step(line: bytes) -> int | float | None:
    """The step of a line of metrics, None where it is none."""
    try:
        record: Any = json.loads(line.decode("utf-8"))
    except (ValueError, RecursionError):
        return None
    step = record.get("step") if isinstance(record, dict) else None
    return step if isinstance(step, int | float) and not isinstance(step, bool) and step == step else None
