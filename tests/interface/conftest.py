"""Tiny models and clips, and the verbs as a terminal calls them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import nemo_cosmos as nc
from nemo_cosmos.data.video import read_frames, write_mp4
from tests.inference import runs


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``run``, ``tokenizer``, ``text``, ``clip.mp4``, and ``clips`` for `prepare`."""
    path = tmp_path_factory.mktemp("interface")
    runs.write_models(path)
    (path / "clips").mkdir()
    for name in ("one", "two"):
        write_mp4(path / "clips" / f"{name}.mp4", read_frames(path / "clip.mp4"), fps=8)
        (path / "clips" / f"{name}.txt").write_text(f"clip {name}")
    pixels = np.arange(32 * 48 * 3, dtype=np.uint32).reshape(32, 48, 3) * 7 % 256
    Image.fromarray(pixels.astype(np.uint8)).save(path / "frame.png")
    return path


@pytest.fixture(scope="module")
def pipe(folder: Path) -> nc.Pipeline:
    return nc.Pipeline.from_pretrained(folder / "run", tokenizer=folder / "tokenizer", text_encoder=folder / "text")
