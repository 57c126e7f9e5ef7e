"""Whether a run will find what it reads, as far as that can be told from here."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from nemo_cosmos.config import TrainConfig
from nemo_cosmos.errors import InputError
from nemo_cosmos.launch.config import DockerLaunch, Launch, LocalLaunch, SlurmLaunch
from nemo_cosmos.launch.executors import CONTAINER_WORKDIR, workdir
from nemo_cosmos.run_folder import LATEST
from nemo_cosmos.tiny import is_name
from nemo_cosmos.training.tokenizer.config import TokenizerTrainConfig


def check_places(launch: Launch, config: TrainConfig | TokenizerTrainConfig) -> list[str]:
    """Hold the paths that a run reads to this machine, and to the mounts of its container.

    Returns:
        What is not here and may be there, on the nodes of a cluster; a sentence each.

    Raises:
        InputError: something is missing where the run will look for it.
    """
    if isinstance(launch, LocalLaunch):
        for key, path in _reads(config):
            if not Path(path).exists():
                raise InputError(f"{key}={path}: nothing is there; it is read where the run starts, on this machine")
        if isinstance(config, TokenizerTrainConfig):
            from nemo_cosmos.training.tokenizer.data import resolve_source

            resolve_source(config.data.train, config.data)
        return []
    if isinstance(launch, DockerLaunch):
        _check_mounts("executor.volumes", launch.executor.volumes, CONTAINER_WORKDIR, config)
        return [] if launch.executor.workdir else list(_not_here(config, relative=True))
    assert isinstance(launch, SlurmLaunch)
    if launch.executor.container_image is not None:
        folder = str(workdir(launch.executor.workdir))
        _check_mounts("executor.container_mounts", launch.executor.container_mounts, folder, config)
    return [] if launch.executor.ssh.host else list(_not_here(config, relative=launch.executor.workdir is None))


def _reads(config: TrainConfig | TokenizerTrainConfig) -> Iterator[tuple[str, str]]:
    """Key and path of what a run needs to have, besides what the package brings along."""
    for key, path in _named(config):
        if not is_name(path):
            yield key, path


def _named(config: TrainConfig | TokenizerTrainConfig) -> Iterator[tuple[str, str]]:
    if isinstance(config, TrainConfig):
        yield "data.path", config.data.path
        if config.data.mode == "online" and config.data.tokenizer_path:
            yield "data.tokenizer_path", config.data.tokenizer_path
    # A run that goes on has its weights.
    if config.model.init_from and not (Path(config.output_dir) / "checkpoints" / LATEST).exists():
        yield "model.init_from", config.model.init_from


def _not_here(config: TrainConfig | TokenizerTrainConfig, *, relative: bool) -> Iterator[str]:
    for key, path in _reads(config):
        if (relative or Path(path).is_absolute()) and not Path(path).exists():
            yield f"{key}={path} is not on this machine"


def _check_mounts(option: str, mounts: list[str], folder: str, config: TrainConfig | TokenizerTrainConfig) -> None:
    inside = [PurePosixPath(folder), *(PurePosixPath(mount.split(":")[1]) for mount in mounts)]
    for key, path in [*_reads(config), ("output_dir", config.output_dir)]:
        if path.startswith("/") and not any(PurePosixPath(path).is_relative_to(place) for place in inside):
            raise InputError(
                f"{key}={path} is not in the container, which has {', '.join(map(str, inside))}; mount it, for "
                f"example {option}=[{Path(path).parent}:{Path(path).parent}]"
            )
