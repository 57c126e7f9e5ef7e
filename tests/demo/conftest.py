"""One folder of stand-in weights for all tests of the demo."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.demo.standin import write_weights


@pytest.fixture(scope="package")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """In the layout of ``nemo-cosmos-tiny``; read only."""
    return write_weights(tmp_path_factory.mktemp("weights") / "tiny")
