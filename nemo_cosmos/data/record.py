"""What a run was trained on: ``data.json`` in its folder, for those who resume it or generate with it."""

from __future__ import annotations

import logging
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path

from nemo_cosmos.atomic import write_json
from nemo_cosmos.data.manifest import read_json
from nemo_cosmos.errors import InputError
from nemo_cosmos.typed import from_json

logger = logging.getLogger(__name__)
RECORD_NAME = "data.json"


@dataclass(frozen=True)
class DataRecord:
    """The training data of a run.

    Attributes:
        path: where it was.
        digest: SHA-256 that changes with any sample; equal data has the same wherever it lies.
        samples: number of samples.
        fps: distinct frame rates of the samples, empty where unknown.
    """

    path: str
    digest: str
    samples: int
    fps: list[float] = field(default_factory=list)

    def save(self, folder: Path) -> None:
        """Write ``folder/data.json`` under a temporary name, then rename."""
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / RECORD_NAME, asdict(self))

    def __str__(self) -> str:
        return f"{self.path} ({self.samples} samples, {self.digest[:12]})"


def read_data_record(folder: Path) -> DataRecord | None:
    """The record of a run folder, None where there is none.

    Raises:
        InputError: it is damaged.
    """
    file = folder / RECORD_NAME
    if not file.is_file():
        return None
    values = read_json(file)
    known = {f.name for f in fields(DataRecord)}
    try:
        return from_json(DataRecord, {name: value for name, value in values.items() if name in known}, str(file))
    except InputError as error:
        raise InputError(f"{error}: the file is damaged; delete it") from error


def refuse_other_data(folder: Path, now: DataRecord, *, allow_change: bool) -> None:
    """Compare the data of a run that is resumed with what it was trained on so far.

    A run that recorded nothing, because it began before there was a record, is not held to anything.

    Raises:
        InputError: they differ and ``allow_change`` is off.
    """
    before = read_data_record(folder)
    if before is None or before.digest == now.digest:
        return
    change = f"{folder} was trained on {before}, the data is now {now}"
    if not allow_change:
        raise InputError(
            f"{change}: name the data it was trained on, or set data.allow_change=true to go on with these samples"
        )
    logger.warning("%s: going on with these samples (data.allow_change=true)", change)


def recorded_rates(folder: Path) -> list[float]:
    """Frame rates of the samples that a run was trained on; empty where they are unknown."""
    record = read_data_record(folder)
    return [] if record is None else record.fps
