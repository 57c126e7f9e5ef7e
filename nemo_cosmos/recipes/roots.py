"""What can be trained: the root files of `conf/` that experiments are composed on, and the schema of each."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING, Any

from nemo_cosmos.compose import experiment_file, experiment_names
from nemo_cosmos.config import TrainConfig
from nemo_cosmos.training.tokenizer.config import TokenizerTrainConfig

if TYPE_CHECKING:
    Settings = TrainConfig | TokenizerTrainConfig

ROOTS: dict[str, type[Any]] = {"train": TrainConfig, "tokenizer_train": TokenizerTrainConfig}
"""World models and tokenizers; names of experiments are unique over both."""


def root_of(experiment: str) -> str:
    """The root of a shipped experiment; InputError names the nearest one when there is none of that name."""
    roots = {name: root for root in ROOTS for name in experiment_names(root)}
    if experiment not in roots:
        near = difflib.get_close_matches(experiment, roots, n=1, cutoff=0)
        experiment_file(experiment, roots[near[0]])
    return roots[experiment]


def root_of_settings(config: Settings) -> str:
    """The root that a configuration object belongs to."""
    return next(root for root, schema in ROOTS.items() if isinstance(config, schema))
