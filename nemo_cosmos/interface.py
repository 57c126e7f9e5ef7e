"""Training from Python: the configuration of an experiment as an object, and a run of it in this process.

`import nemo_cosmos as nc` offers these functions as `nc.load_config` and `nc.train`, beside `nc.prepare` and
`nc.Pipeline`. Nothing heavy is imported before a function is called.
"""

from __future__ import annotations

import contextlib
import os
import random
import sys
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from nemo_cosmos import compose
from nemo_cosmos.config import TrainConfig
from nemo_cosmos.ending import report_to
from nemo_cosmos.errors import InputError


def load_config(experiment: str, overrides: Mapping[str, Any] | None = None) -> TrainConfig:
    """The configuration of a shipped experiment, all values filled in.

    Args:
        experiment: its name, as `nemo-cosmos experiments` lists it.
        overrides: Python values by dotted key, for example ``{"trainer.max_steps": 1000, "optimizer.lr": 1e-4}``;
            they arrive as they are, whatever characters a text holds, except that ``${key}`` is replaced by the value
            of that key, as in the files. ``{"parallel": "tensor2"}`` takes a file of `conf/parallel`.

    Returns:
        A new object whose fields may be changed, for :func:`train`.

    Raises:
        InputError: an unknown experiment or key, or a value of the wrong type or out of range; it names the key.
    """
    if not isinstance(experiment, str):
        raise InputError(f"experiment={str(experiment)[:80]!r}: expected the name of an experiment")
    if overrides is not None and not isinstance(overrides, Mapping):
        raise InputError("overrides: expected a dict, for example {'trainer.max_steps': 1000}")
    compose.experiment_file(experiment)
    return compose.load_config(TrainConfig, [f"experiment={experiment}"], values=overrides)


def train(experiment: str | TrainConfig, overrides: Mapping[str, Any] | None = None) -> Path:
    """Train or post-train a world model in this process; goes on from the newest checkpoint of its run folder.

    Prints a line a step, as the command does. Under torchrun every process calls it. Afterwards, and
    after an error, environment variables, warning filters, levels of loggers, handlers of signals, process groups,
    PyTorch's settings and random generators are as before, so that it can be called again.

    Args:
        experiment: name of a shipped experiment, or a configuration as :func:`load_config` gives it.
        overrides: as for :func:`load_config`, with the name of an experiment.

    Returns:
        The run folder, which :class:`~nemo_cosmos.inference.pretrained.Pipeline` loads.

    Raises:
        InputError: the configuration, the data or the layout does not fit; raised before anything is written.
    """
    if not isinstance(experiment, TrainConfig):
        config = load_config(experiment, overrides)
    elif overrides:
        raise InputError("overrides go with the name of an experiment; change the fields of a TrainConfig instead")
    else:
        config = compose.checked_config(experiment)
    report_to(config.output_dir)
    with _process_as_before():
        from nemo_cosmos.training.run import train as run

        run(config)
    return Path(config.output_dir)


@contextlib.contextmanager
def _process_as_before() -> Iterator[None]:
    """What training changes of the process, and libraries while they train, is taken back when it is done."""
    import numpy as np
    import torch
    import torch.distributed as dist

    environment, hook, joined = dict(os.environ), sys.excepthook, dist.is_initialized()
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    try:
        with warnings.catch_warnings():
            yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.set_rng_state(states[2])
        if dist.is_initialized() and not joined:
            _leave_groups()
        # A process group wraps what prints uncaught exceptions; libraries set variables when they are imported.
        sys.excepthook = hook
        for name in os.environ.keys() - environment.keys():
            del os.environ[name]
        os.environ.update(environment)


def _leave_groups() -> None:
    import torch.distributed as dist
    from megatron.core import num_microbatches_calculator, parallel_state

    num_microbatches_calculator.unset_num_microbatches_calculator()
    parallel_state.destroy_model_parallel()
    dist.destroy_process_group()
