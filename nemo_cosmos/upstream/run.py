"""The changes that a training run needs, for its time alone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from nemo_cosmos.upstream.cpu import cuda_on_cpu
from nemo_cosmos.upstream.nemo import adapted_nemo, lean_imports


@contextmanager
def adapted_upstream() -> Iterator[bool]:
    """Within it, NeMo imports and runs, on machines without a GPU, too; says whether CUDA calls go to the CPU.

    NeMo and Lightning should be imported within it for the first time: they look for packages and for CUDA when they
    load.
    """
    with lean_imports(), cuda_on_cpu() as on_cpu, adapted_nemo():
        yield on_cpu
