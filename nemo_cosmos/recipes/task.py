"""What a recipe runs: training with exactly its configuration."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from nemo_cosmos.compose import checked_config
from nemo_cosmos.config import TrainConfig
from nemo_cosmos.errors import InputError
from nemo_cosmos.recipes.roots import ROOTS, root_of_settings
from nemo_cosmos.training.tokenizer.config import TokenizerTrainConfig

if TYPE_CHECKING:
    Settings = TypeVar("Settings", TrainConfig, TokenizerTrainConfig)


def train(config: TrainConfig | TokenizerTrainConfig) -> None:
    """Train a world model or a tokenizer; under torchrun, or alone in this process.

    Goes on from the newest checkpoint of its run folder, as the commands `train` and `tokenizer train` do.

    Raises:
        InputError: the configuration, the data or the layout does not fit; raised before anything is written.
    """
    if not isinstance(config, TokenizerTrainConfig):
        from nemo_cosmos.interface import train as run

        run(checked(config))
    else:
        config = checked(config)
        from nemo_cosmos.ending import report_to
        from nemo_cosmos.logs import log_shown
        from nemo_cosmos.training.tokenizer.trainer import train as run_tokenizer

        report_to(config.output_dir)
        with log_shown():
            run_tokenizer(config)


def checked(config: Settings) -> Settings:
    """A copy of a recipe's configuration with references resolved and every value held to its type and range.

    Raises InputError, naming the key.
    """
    if not isinstance(config, tuple(ROOTS.values())):
        names = " or ".join(schema.__name__ for schema in ROOTS.values())
        raise InputError(f"config={str(config)[:80]!r}: expected a {names}")
    return checked_config(config, root=root_of_settings(config))
