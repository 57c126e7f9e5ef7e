"""The small released model in the package, an image to start from, and an empty current directory."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nemo_cosmos import tiny
from tests.tiny import model


@pytest.fixture(scope="package")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder that the names of the package mean."""
    folder = model.checkpoints(tmp_path_factory.mktemp("tiny") / "checkpoints")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tiny, "FOLDER", folder)
        yield folder


@pytest.fixture
def here(weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current directory, with ``frame.png``."""
    monkeypatch.chdir(tmp_path)
    pixels = np.arange(32 * 48 * 3, dtype=np.uint32).reshape(32, 48, 3) * 7 % 256
    Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / "frame.png")
    return tmp_path
