"""Kernels that add in a fixed order, so that the same step twice gives the same bits on a GPU."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from nemo_cosmos.config import TrainConfig
from nemo_cosmos.errors import InputError

logger = logging.getLogger(__name__)

CUBLAS_WORKSPACE = "CUBLAS_WORKSPACE_CONFIG"
SETTINGS = {CUBLAS_WORKSPACE: ":4096:8", "TORCHINDUCTOR_DETERMINISTIC": "1"}
"""Environment variables: a fixed workspace for matrix products, and compiled kernels that no timing chooses."""


def refuse_nondeterministic(cfg: TrainConfig) -> None:
    """
    Raises:
        InputError: ``trainer.deterministic`` beside a setting that takes it back.
    """
    if cfg.trainer.deterministic and cfg.parallel.context_backend == "transformer_engine":
        raise InputError(
            "trainer.deterministic=true does not reach Transformer Engine's attention; "
            "set parallel.context_backend=auto"
        )


@contextmanager
def deterministic_kernels(wanted: bool) -> Iterator[None]:
    """Within it, PyTorch refuses operations whose result depends on timing; attention is flash, not cuDNN's.

    Must be entered before the first matrix product on a GPU and the first compilation: the settings are read once.
    """
    if not wanted:
        yield
        return
    switches: Any = torch.utils.deterministic
    fill = switches.fill_uninitialized_memory
    before = torch.are_deterministic_algorithms_enabled()
    only_warns = torch.is_deterministic_algorithms_warn_only_enabled()
    added = {name: value for name, value in SETTINGS.items() if name not in os.environ}
    os.environ.update(added)
    torch.use_deterministic_algorithms(True)
    # Filling every new buffer costs a memory pass each, and nothing here reads memory that it has not written.
    switches.fill_uninitialized_memory = False
    logger.info("deterministic kernels: the same step twice gives the same bits, more slowly")
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before, warn_only=only_warns)
        switches.fill_uninitialized_memory = fill
        for name in added:
            os.environ.pop(name, None)
