"""What every test may rely on: one thread per process, no network, and the command line as a function."""

from __future__ import annotations

import os
from types import SimpleNamespace

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_OFFLINE", "1")
os.environ.setdefault("WANDB_MODE", "disabled")


@pytest.fixture
def nearest_resize(monkeypatch: pytest.MonkeyPatch) -> None:
    """diffusers resizes the padding mask with torchvision, of which no build goes with the tested torch."""
    import torch.nn.functional as F
    from diffusers.models.transformers import transformer_cosmos

    functional = SimpleNamespace(resize=lambda mask, size, interpolation: F.interpolate(mask, size, mode="nearest"))
    stand_in = SimpleNamespace(functional=functional, InterpolationMode=SimpleNamespace(NEAREST="nearest"))
    monkeypatch.setattr(transformer_cosmos, "transforms", stand_in, raising=False)
