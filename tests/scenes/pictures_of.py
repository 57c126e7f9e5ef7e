"""Photographs of a package that a test makes itself."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
from PIL import Image

from nemo_cosmos.scenes.photographs import Photograph

PACKAGE = "pictures_of_a_test"


def make_photographs(site: Path, count: int = 3) -> list[Photograph]:
    """Write ``count`` pictures of soft spots into a package folder below ``site``, the last one grey."""
    folder = site / PACKAGE / "data"
    folder.mkdir(parents=True)
    made = []
    for number in range(count):
        random = np.random.default_rng(number)
        coarse = random.integers(0, 256, (6, 8, 3), np.uint8)
        image = Image.fromarray(coarse).resize((160, 120), Image.Resampling.BICUBIC)
        file = folder / f"picture_{number}.png"
        (image.convert("L") if number == count - 1 else image).save(file)
        digest = hashlib.sha256(file.read_bytes()).hexdigest()
        made.append(Photograph("a-test", f"{PACKAGE}/data", file.name, f"thing {number}", 1.0, "CC0 1.0", digest))
    return made
