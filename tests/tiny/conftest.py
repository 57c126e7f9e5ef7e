"""The small released model in the package, an image to start from, and an empty current directory."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nemo_cosmos import tiny


@pytest.fixture(scope="package")
def weights() -> Path:
    """The folder that the names of the package mean."""
    return tiny.FOLDER


@pytest.fixture
def here(weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current directory, with ``frame.png``."""
    monkeypatch.chdir(tmp_path)
    pixels = np.arange(32 * 48 * 3, dtype=np.uint32).reshape(32, 48, 3) * 7 % 256
    Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / "frame.png")
    return tmp_path
